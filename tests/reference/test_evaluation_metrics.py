"""Figures of exams against scikit-learn, torchmetrics, statsmodels, scipy, pycocotools; degenerate input too.

Where ours departs, the test says so and holds what ours gives.
"""

import contextlib
import io
import math
from itertools import permutations

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats
from sklearn import metrics as known

from malpighi.evaluation import calibration, metrics
from malpighi.evaluation.effects import cohens_d, odds_ratio, rank_biserial
from malpighi.evaluation.friedman import critical_difference, friedman
from malpighi.evaluation.retrieval import recall, retrieval
from malpighi.evaluation.statistics import holm, mcnemar, wilson
from malpighi.grading.match_many import detection_parts_many

CLOSE = 1e-9


def an_exam(seed, classes, n=80, *, invalid=True):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    wild = random.integers(0, classes + invalid, n)
    return truth, np.where(random.random(n) < 0.5, truth, wild)


def a_matrix(truth, predicted, classes):
    counts = np.zeros((classes, classes + 1), int)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def some_chances(seed, classes, n=120, *, tied=False):
    random = np.random.default_rng(seed)
    chances = random.dirichlet(np.full(classes, 0.6), n)
    if tied:
        chances = np.round(chances * 4 + 0.5)
        chances /= chances.sum(axis=1, keepdims=True)
    truth = np.r_[np.arange(classes), random.integers(0, classes, n - classes)]
    return chances, truth


DEGENERATE = {
    "one class, all right": (np.zeros(9, int), np.zeros(9, int)),
    "one class, all wrong": (np.zeros(9, int), np.ones(9, int)),
    "all unreadable": (np.arange(9) % 3, np.full(9, 3)),
    "always one answer": (np.arange(9) % 3, np.zeros(9, int)),
    "one sample": (np.array([2]), np.array([2])),
    "classes that never occur": (np.array([0, 1, 0]), np.array([2, 1, 0])),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("classes", [2, 3, 8])
def test_kappa_equals_sklearn(seed, classes):
    truth, predicted = an_exam(seed, classes)
    found = metrics.kappa(a_matrix(truth, predicted, classes))
    wanted = known.cohen_kappa_score(truth, predicted, labels=list(range(classes + 1)))
    assert found == pytest.approx(wanted, abs=CLOSE)


@pytest.mark.parametrize("seed", range(6))
def test_quadratic_kappa_equals_sklearn_where_all_is_readable(seed):
    truth, predicted = an_exam(seed, 5, invalid=False)
    wanted = known.cohen_kappa_score(truth, predicted, labels=list(range(5)), weights="quadratic")
    assert metrics.quadratic_kappa(a_matrix(truth, predicted, 5)) == pytest.approx(wanted, abs=CLOSE)


def test_an_unreadable_answer_weighs_as_the_farthest_miss():
    near, far, lost = (
        [[5, 0, 0, 0], [0, 5, 0, 0], list(row)] for row in ((0, 5, 0, 0), (5, 0, 0, 0), (0, 0, 0, 5))
    )
    found = [metrics.quadratic_kappa(np.array(counts)) for counts in (near, far, lost)]
    assert found[0] > found[1]
    assert found[0] > found[2]


def test_kappa_of_statsmodels():
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    truth, predicted = an_exam(3, 4, invalid=False)
    counts = a_matrix(truth, predicted, 4)
    table = counts[:, :-1]
    assert metrics.kappa(counts) == pytest.approx(inter_rater.cohens_kappa(table).kappa, abs=CLOSE)
    weighted = inter_rater.cohens_kappa(table, wt="fc").kappa
    assert metrics.quadratic_kappa(counts) == pytest.approx(weighted, abs=CLOSE)


@pytest.mark.parametrize("name", DEGENERATE)
def test_figures_of_degenerate_exams_equal_sklearn(name):
    truth, predicted = DEGENERATE[name]
    counts = a_matrix(truth, predicted, 3)
    labels = sorted(set(truth.tolist()))
    over = {"labels": labels, "average": "macro", "zero_division": 0}
    assert metrics.accuracy(counts) == pytest.approx(known.accuracy_score(truth, predicted), abs=CLOSE)
    assert metrics.macro_f1(counts) == pytest.approx(known.f1_score(truth, predicted, **over), abs=CLOSE)
    balanced = known.recall_score(truth, predicted, **over)
    assert metrics.balanced_accuracy(counts) == pytest.approx(balanced, abs=CLOSE)
    if len({*truth.tolist(), *predicted.tolist()}) == 1:
        # Departs: scikit-learn gives nan, which no table can hold; nothing beyond chance was shown.
        assert metrics.kappa(counts) == 0
    else:
        wanted = known.cohen_kappa_score(truth, predicted, labels=[0, 1, 2, 3])
        assert metrics.kappa(counts) == pytest.approx(wanted, abs=CLOSE)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_auroc_and_brier_equal_sklearn(seed, classes, tied):
    chances, truth = some_chances(seed, classes, tied=tied)
    scores = chances[:, 1] if classes == 2 else chances
    wanted = known.roc_auc_score(truth, scores, multi_class="ovr", average="macro")
    assert calibration.auroc(chances, truth) == pytest.approx(wanted, abs=CLOSE)
    brier = known.brier_score_loss(truth, chances, labels=list(range(classes)), scale_by_half=False)
    assert calibration.brier(chances, truth) == pytest.approx(brier, abs=CLOSE)


def test_auroc_of_torchmetrics():
    torch, classification = torchmetrics()
    chances, truth = some_chances(5, 4)
    area = classification.multiclass_auroc(torch.tensor(chances), torch.tensor(truth), num_classes=4)
    assert calibration.auroc(chances, truth) == pytest.approx(float(area), abs=1e-6), (
        "torchmetrics adds in float32"
    )


def test_auroc_leaves_out_classes_without_a_curve():
    chances, truth = some_chances(0, 3)
    seen = truth < 2
    areas = [known.roc_auc_score(truth[seen] == k, chances[seen, k]) for k in (0, 1)]
    assert calibration.auroc(chances[seen], truth[seen]) == pytest.approx(np.mean(areas), abs=CLOSE)
    assert calibration.auroc(chances[:3], np.zeros(3, int)) is None


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("classes", [2, 5])
def test_ece_equals_torchmetrics(bins, classes):
    torch, classification = torchmetrics()
    chances, truth = some_chances(classes, classes, 400)
    wanted = classification.multiclass_calibration_error(
        torch.tensor(chances), torch.tensor(truth), num_classes=classes, n_bins=bins
    )
    assert calibration.ece(*calibration.judged(chances, truth), bins) == pytest.approx(
        float(wanted), abs=1e-6
    )


def torchmetrics():
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchmetrics")
    from torchmetrics.functional import classification  # noqa: PLC0415

    return torch, classification


def ece_by_hand(confidence, right, bins):
    total = 0.0
    for k in range(bins):
        low, high = k / bins, (k + 1) / bins
        held = [i for i, c in enumerate(confidence) if low <= c < high or (k == bins - 1 and c == 1)]
        if held:
            gap = abs(sum(confidence[i] for i in held) - sum(right[i] for i in held))
            total += gap / len(confidence)
    return total


@pytest.mark.parametrize("confidence", [[1.0] * 8, [0.0, 0.5, 0.5, 1.0], [0.25, 0.75, 0.75, 0.5]])
def test_ece_on_the_edges_of_bins_equals_a_plain_loop(confidence):
    # torchmetrics opens a bin of its own for a confidence of 1; here the last bin holds its upper edge.
    right = np.arange(len(confidence)) % 2.0
    found = calibration.ece(np.array(confidence), right, 4)
    assert found == pytest.approx(ece_by_hand(confidence, right, 4), abs=CLOSE)


@pytest.mark.parametrize(("equal_mass", "strategy"), [(False, "uniform"), (True, "quantile")])
def test_the_reliability_table_equals_sklearn(equal_mass, strategy):
    from sklearn.calibration import calibration_curve  # noqa: PLC0415

    random = np.random.default_rng(1)
    confidence = random.random(1000)
    right = (random.random(1000) < confidence).astype(float)
    found = calibration.reliability(confidence, right, 10, equal_mass=equal_mass)
    accuracy, mean = calibration_curve(right, confidence, n_bins=10, strategy=strategy)
    assert [row.accuracy for row in found] == pytest.approx(accuracy.tolist(), abs=CLOSE)
    assert [row.confidence for row in found] == pytest.approx(mean.tolist(), abs=CLOSE)


def test_the_risk_of_ties_is_the_mean_over_their_orders():
    confidence, right = np.array([0.9, 0.5, 0.5, 0.5, 0.2]), np.array([1.0, 0, 1, 0, 1])
    orders = []
    for order in permutations((1, 2, 3)):
        errors = 1 - right[[0, *order, 4]]
        orders.append(np.cumsum(errors) / np.arange(1, 6))
    assert calibration.risk_coverage(confidence, right) == pytest.approx(np.mean(orders, axis=0), abs=CLOSE)


def recall_by_hand(scores, queries, candidates, k):
    """Straight sorting, every order of what ties tried at random places is not needed without ties."""
    hits = []
    for row, key in zip(scores, queries, strict=True):
        if key in candidates:
            first = np.argsort(-row, kind="stable")[:k]
            hits.append(any(candidates[place] == key for place in first))
    return float(np.mean(hits))


@pytest.mark.parametrize("seed", range(4))
def test_recall_equals_sorting_in_both_directions(seed, monkeypatch):
    monkeypatch.setattr("malpighi.evaluation.retrieval._BLOCK_CELLS", 70)
    random = np.random.default_rng(seed)
    image_keys, text_keys = random.integers(0, 20, 40).tolist(), list(range(25))
    images, texts = random.normal(size=(40, 8)), random.normal(size=(25, 8))
    found = retrieval(images, texts, image_keys, text_keys, ks=(1, 3, 10))
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, texts)]
    cosines = unit[0] @ unit[1].T
    for k in (1, 3, 10):
        there = recall_by_hand(cosines, image_keys, text_keys, k)
        back = recall_by_hand(cosines.T, text_keys, image_keys, k)
        assert found.image_to_text.at[k] == pytest.approx(there, abs=CLOSE)
        assert found.text_to_image.at[k] == pytest.approx(back, abs=CLOSE)
    assert found.text_to_image.partnerless == len(set(text_keys) - set(image_keys))


@pytest.mark.parametrize("seed", range(3))
def test_recall_with_ties_is_the_mean_over_all_orders(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 2, (6, 5)).astype(float)
    queries, candidates = random.integers(0, 3, 6).tolist(), [0, 1, 2, 0, 1]
    for k in (1, 2, 4):
        orders = [
            recall_by_hand(scores[:, list(order)], queries, [candidates[i] for i in order], k)
            for order in permutations(range(5))
        ]
        found = recall(scores, queries, candidates, ks=(k,))
        assert found.at[k] == pytest.approx(np.mean(orders), abs=CLOSE)
        assert recall(scores, queries, candidates, ks=(k,), ties="worst").at[k] <= min(orders) + CLOSE


def test_mcnemar_wilson_and_holm_equal_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    random = np.random.default_rng(0)
    for n in (1, 5, 60):
        a, b = random.integers(0, 2, n), random.integers(0, 2, n)
        table = [[((a == i) & (b == j)).sum() for j in (1, 0)] for i in (1, 0)]
        assert mcnemar(a, b) == pytest.approx(tables.mcnemar(table, exact=True).pvalue, abs=CLOSE)
    for right, n in ((0, 4), (4, 4), (7, 90)):
        wanted = proportion.proportion_confint(right, n, method="wilson")
        assert wilson(right, n) == pytest.approx(wanted, abs=CLOSE)
    p_values = [*random.random(12), 0.0, 1.0, 0.03, 0.03]
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1], abs=CLOSE)


def test_the_odds_ratio_holds_the_exact_interval_of_its_share():
    for gained, lost in ((3, 9), (0, 5), (5, 0), (40, 40)):
        found = odds_ratio(gained, lost)
        share = stats.binomtest(gained, gained + lost).proportion_ci(method="exact")
        assert found.low == pytest.approx(share.low / (1 - share.low), abs=CLOSE)
        high = share.high / (1 - share.high) if share.high < 1 else None
        assert found.high == (None if high is None else pytest.approx(high, rel=CLOSE))
    assert odds_ratio(0, 0) == odds_ratio(0, 0).__class__(1.0)


def test_effect_sizes_equal_the_statistics_they_come_from():
    differences = np.round(np.random.default_rng(1).normal(0.2, 1, 40), 1)
    t = stats.ttest_1samp(differences, 0).statistic
    assert cohens_d(differences).value == pytest.approx(t / math.sqrt(40), abs=CLOSE)
    free = differences[differences != 0]
    ranks = stats.rankdata(np.abs(free))
    up, down = ranks[free > 0].sum(), ranks[free < 0].sum()
    assert rank_biserial(free).value == pytest.approx((up - down) / (up + down), abs=CLOSE)
    assert stats.wilcoxon(free).statistic == min(up, down)
    assert (cohens_d(np.full(5, 0.1)).value, rank_biserial(np.zeros(4)).value) == (0, 0)
    assert rank_biserial(np.array([0.1, 0, 2])).value == 1


@pytest.mark.parametrize("seed", range(4))
def test_friedman_equals_scipy(seed):
    scores = np.random.default_rng(seed).integers(0, 4, (12, 5)) / 4
    found = friedman(list("abcde"), scores.tolist())
    wanted = stats.friedmanchisquare(*scores.T)
    assert (found.statistic, found.p) == pytest.approx((wanted.statistic, wanted.pvalue), abs=CLOSE)
    ranks = np.mean([stats.rankdata(-row) for row in scores], axis=0)
    assert found.ranks == pytest.approx(ranks, abs=CLOSE)


@pytest.mark.parametrize(("models", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_differences_equal_the_printed_table(models, q):
    # Demsar (2006), table 5(a), at 0.05.
    found = critical_difference(models, 30) / math.sqrt(models * (models + 1) / (6 * 30))
    assert found == pytest.approx(q, abs=1.1e-3)


def pooled_by_coco(predicted, truth, thresholds):
    boxes = [
        [{"image_id": image, "bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": 1, "score": 1.0,
          "area": (x1 - x0) * (y1 - y0), "iscrowd": 0} for image, rows in enumerate(side)
         for x0, y0, x1, y1 in rows.tolist()]
        for side in (predicted, truth)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(len(truth))],
            "categories": [{"id": 1}],
            "annotations": [{**box, "id": place + 1} for place, box in enumerate(boxes[1])],
        }
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(boxes[0]), "bbox")
        run.params.iouThrs = np.array(thresholds)
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][:, :, 0, 0, -1].mean(axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_pooled_precision_equals_pycocotools(seed):
    random = np.random.default_rng(seed)
    predicted, truth = [], []
    for _ in range(25):
        corner = random.integers(0, 100, (random.integers(0, 9), 2))
        true = np.concatenate([corner, corner + random.integers(8, 40, corner.shape)], axis=1).astype(float)
        truth.append(true)
        near = true[random.random(len(true)) < 0.8]
        junk = np.array([[1.0, 2, 30, 40]] * int(random.integers(0, 3))).reshape(-1, 4)
        predicted.append(
            random.permutation(np.concatenate([near + random.integers(-4, 5, near.shape), junk]))
        )
    thresholds = (0.3, 0.5, 0.7)
    found = detection_parts_many(predicted, truth, thresholds).pooled
    wanted = pooled_by_coco(predicted, truth, thresholds)
    assert [found[t].coco for t in thresholds] == pytest.approx(wanted.tolist(), abs=CLOSE)
