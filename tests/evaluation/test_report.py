"""The rows here are invented; they exist to fill the page."""

import math
import random
import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageDraw

from malpighi.evaluation.cases import boxes_of, case_of, spoken, truth_text
from malpighi.evaluation.charts import gain_bar, heat_map, line_chart, picture
from malpighi.evaluation.metrics import Confusion
from malpighi.evaluation.report import DatasetRow, Panel, ReportInput, render, styles_of, write_report
from malpighi.evaluation.statistics import Bootstrap, Estimate
from malpighi.evaluation.tables import exam_confusions, results
from malpighi.geometry import Box
from malpighi.grading.grade import grade
from malpighi.records import (
    Boxes,
    Choice,
    Failure,
    Grade,
    ImageRef,
    Prediction,
    Provenance,
    Sample,
    Scale,
    Status,
    TaskKind,
    Text,
    Turn,
)

HOSTILE = (
    "<script src=https://evil.example/x.js></script><img src=x onerror=alert(1)>\"'><style>*{display:none}"
)
CLASSES = ("NILM", "ASC-US", "LSIL", "ASC-H", "HSIL")
MODELS = {"majority": 0.2, "untrained": 0.3, "supervised": 0.72, "reinforced": 0.81}


def a_sample(exam: str, number: int, task: TaskKind, **fields) -> Sample:
    return Sample(
        id=f"{exam}/{number}",
        dataset="invented",
        exam=exam,
        task=task,
        scale=Scale.ROI,
        images=(ImageRef(f"{number:064x}", (160, 120)),),
        group=f"slide{number // 2}",
        licence="CC0-1.0",
        provenance=Provenance("test"),
        **fields,
    )


def the_samples() -> list[Sample]:
    draw = random.Random(4)
    samples = []
    for number in range(60):
        ask = (Turn("user", "Which Bethesda class does this cell belong to?"),)
        answer = Choice(draw.choice((0, 0, 1, 2, 3, 4)))
        samples.append(
            a_sample(
                "invented/bethesda",
                number,
                TaskKind.CLASSIFICATION,
                turns=ask,
                answer=answer,
                options=CLASSES,
            )
        )
    for number in range(24):
        ask = (Turn("user", "Mark every mitotic figure."),)
        x, y = draw.randrange(20, 100), draw.randrange(10, 80)
        answer = Boxes((Box(x, y, x + 30, y + 26),))
        samples.append(a_sample("invented/mitoses", number, TaskKind.DETECTION, turns=ask, answer=answer))
    for number in range(20):
        ask = (Turn("user", "Which stain is this?"),)
        answer = Text("papanicolaou stain")
        samples.append(a_sample("invented/open", number, TaskKind.VQA, turns=ask, answer=answer))
    return samples


def reply(sample: Sample, skill: float, draw: random.Random) -> str:
    good = draw.random() < skill
    if not good and draw.random() < 0.15:
        return "<think>The cell is hard to see and I am still"
    match sample.answer:
        case Choice(index=index):
            said = CLASSES[index if good else draw.randrange(5)]
            why = "Nuclei are enlarged to about three times an intermediate nucleus, the rim is irregular."
        case Boxes(boxes=boxes):
            shift = 3 if good else 14
            said = str([[round(v) + draw.randrange(shift) for v in box.corners] for box in boxes])
            why = "One figure with clumped chromatin and no membrane."
        case _:
            said, why = "papanicolaou stain" if good else "haematoxylin stain", "Green cytoplasm."
    return f"<think>{why}</think><answer>{said}</answer>"


def the_rows(samples: list[Sample]) -> list[Prediction]:
    rows = []
    for model, skill in MODELS.items():
        draw = random.Random(model)
        for sample in samples:
            text = "<answer>NILM</answer>" if model == "majority" else reply(sample, skill, draw)
            rows.append(
                Prediction(
                    model=model,
                    exam=sample.exam,
                    sample=sample.id,
                    group=sample.group,
                    task=sample.task,
                    text=text,
                    grade=grade(sample, text),
                    truth=_truth(sample),
                )
            )
    return rows


def _truth(sample: Sample):
    match sample.answer:
        case Choice(index=index):
            return {"index": index, "options": list(sample.options)}
        case Boxes(boxes=boxes):
            return [list(box.corners) for box in boxes]
        case text:
            return text.value


def an_image(seed: int) -> Image.Image:
    image = Image.new("RGB", (160, 120), (238, 222, 232))
    pen, draw = ImageDraw.Draw(image), random.Random(seed)
    for _ in range(14):
        x, y, r = draw.randrange(160), draw.randrange(120), draw.randrange(5, 15)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(150 + draw.randrange(50), 110, 170))
        pen.ellipse((x - r / 3, y - r / 3, x + r / 3, y + r / 3), fill=(80, 50, 110))
    return image


def the_report(hostile: str = "", failures: int = 3) -> ReportInput:
    samples = the_samples()
    rows = the_rows(samples)
    shown = [samples[0], samples[3], samples[60], samples[61], samples[84]]
    if hostile:
        rows = [
            msgspec.structs.replace(row, text=f"<think>{hostile}</think><answer>{hostile}</answer>")
            for row in rows
        ]
        shown = [msgspec.structs.replace(s, id=s.id, turns=(Turn("user", hostile),)) for s in shown]
    table = results(rows, [("untrained", "supervised"), ("supervised", "reinforced")], Bootstrap(draws=300))
    matrices = exam_confusions(rows)
    steps = range(0, 200, 5)
    return ReportInput(
        title=f"Invented run for looking at the page{hostile}",
        summary=f"Numbers in this page are made up to test its layout. {hostile}",
        plan=[
            {
                "stage": stage,
                "what": f"{stage} stage {hostile}",
                "starts from": "tiny",
                "steps": 200,
                "samples": 960,
            }
            for stage in ("alignment", "supervised", "reinforced")
        ],
        datasets=[
            DatasetRow(
                f"invented cells{hostile}",
                {"train": 480, "validation": 60, "test": 60},
                f"CC0-1.0{hostile}",
                f"by slide, 80/10/10, seed 0{hostile}",
                (f"Two cells of one slide look alike.{hostile}",),
                3,
            ),
            DatasetRow("invented regions", {"train": 100, "test": 44}, "CC-BY-4.0", "published folders"),
        ],
        results=table,
        panels=[
            Panel(
                "leakage",
                "Leakage",
                f"Test samples that training has seen. {hostile}",
                [{"exam": f"invented/bethesda{hostile}", "share": 0.0312, "pairs": 2}],
                [f"2 pairs lie on both sides. {hostile}"],
            )
        ],
        curves={
            "supervised": [
                {"step": s, "loss": 1.9 * math.exp(-s / 60) + 0.2 + 0.03 * math.sin(s)} for s in steps
            ],
            "reinforced": [
                {
                    "step": s,
                    "reward": 0.6 + 0.001 * s + 0.02 * math.sin(s / 3),
                    "length": 60 - s / 10,
                    "entropy": 1.1 * math.exp(-s / 90),
                    hostile or "kl": 1e-4 * s,
                }
                for s in steps
            ],
        },
        confusions={
            key: matrix for key, matrix in matrices.items() if key[1] in ("supervised", "reinforced")
        },
        cases=[case_of(s, an_image(n), rows, styles_of(table.models)) for n, s in enumerate(shown)],
        failures=[
            Failure(f"invented/{n}{hostile}", "data", f"image is truncated {hostile}")
            for n in range(failures)
        ],
        environment={"malpighi": "0.1.0", "python": "3.11", "device": f"CPU, 2 threads{hostile}"},
    )


class Loads(HTMLParser):
    """Collects everything a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        names = ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background")
        self.addresses += [value for name, value in attrs if name in names]


def seen(page: str) -> Loads:
    loads = Loads()
    loads.feed(page)
    return loads


@pytest.fixture(scope="module")
def page() -> str:
    return render(the_report())


def test_page_loads_nothing_from_anywhere(page):
    loads = seen(page)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(loads.tags)
    assert loads.addresses
    assert all(re.match(r"#[a-z0-9-]+$|data:image/png;base64,", address) for address in loads.addresses)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page


def test_hostile_text_is_shown_and_never_becomes_markup(page):
    hostile = render(the_report(HOSTILE, failures=2))
    plain, loads = seen(page), seen(hostile)
    assert set(loads.tags) == set(plain.tags)
    assert loads.handlers == []
    assert all(re.match(r"#[a-z0-9-]+$|data:image/png;base64,", address) for address in loads.addresses)
    assert HOSTILE not in hostile
    assert hostile.count("&lt;script src=https://evil.example/x.js&gt;") > 20


def test_page_says_what_it_must(page):
    assert page.count("Research use only. Not a medical device.") == 2
    for words in (
        "invented/bethesda",
        "balanced accuracy",
        "mean rank",
        "supervised",
        "none known",
        "CC0-1.0",
    ):
        assert words in page
    for mark in ("✓ right", "✗ wrong", "◐ partly right", "⚠ unread: no answer"):
        assert mark in page
    links = re.findall(r'<a href="#([\w-]+)"', page)
    assert {
        "plan",
        "data",
        "results",
        "comparisons",
        "leakage",
        "curves",
        "task-1",
        "task-3",
        "task-1-2",
    } <= set(links)
    assert all(page.count(f'id="{link}"') == 1 for link in links)


def test_every_exam_has_a_page_with_its_errors_first(page):
    tasks = page.split('<section class="task" id="task-')[1:]
    assert [task.split("<h2>")[1].split("<")[0] for task in tasks] == [
        "invented/bethesda",
        "invented/mitoses",
        "invented/open",
    ]
    for task in tasks:
        assert 'class="forest"' in task
        articles = task.split("<article")[1:]
        wrong = ["✓ right" not in article.split("reinforced")[-1] for article in articles]
        assert wrong == sorted(wrong, reverse=True)
    assert tasks[0].count("confusion matrix") == 2
    assert 'class="ranks"' in page
    assert 'class="radars"' not in page, "a radar needs three exams of a kind"


def test_the_ceiling_of_masks_is_told_where_there_is_one(page):
    assert "ceiling" not in page
    rows = the_rows(the_samples())
    lifted = {"dice": 0.5, "task": 0.5, "dice_ceiling": 0.91}
    rows = [
        msgspec.structs.replace(
            row, task=TaskKind.SEGMENTATION, grade=Grade(0.5, Status.OK, row.grade.parsed, lifted)
        )
        for row in rows
        if row.task is TaskKind.DETECTION
    ]
    told = render(ReportInput("Masks", results(rows, (), Bootstrap(draws=50))))
    assert "<td>Dice<small>ceiling 0.910</small></td>" in told
    assert "The ceiling of a Dice is what the right boxes reach" in told


def test_best_value_alone_is_bold(page):
    section = page[page.index('id="results"') : page.index('id="comparisons"')]
    for line in section.split("<tr>")[2:]:
        bold = re.findall(r'class="r best">([\d.]+)', line)
        every = re.findall(r'<td class="r(?: best)?">(\d\.\d{3})<', line)
        if every:
            assert set(bold) == {max(every)}


def test_only_the_first_failures_are_listed_and_the_rest_is_counted():
    page = render(the_report(failures=203))
    assert "invented/199<" in page
    assert "invented/200<" not in page
    assert "203 items could not be used" in page
    assert "and 3 more" in page


def test_a_report_without_anything_is_still_a_page(tmp_path):
    write_report(ReportInput("Empty", results([])), tmp_path / "deep" / "report.html")
    page = (tmp_path / "deep" / "report.html").read_text("utf-8")
    assert "No predictions." in page
    assert 'id="curves"' not in page
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "report.html"]


def test_same_input_same_page(page):
    assert render(the_report()) == page


def test_boxes_are_drawn_where_they_are():
    sample = the_samples()[60]
    text = "<answer>[[1, 2, 31, 42]]</answer>"
    row = Prediction(
        model="m",
        exam="e",
        sample=sample.id,
        group="g",
        task=sample.task,
        text=text,
        grade=grade(sample, text),
    )
    other = msgspec.structs.replace(row, sample="another")
    case = case_of(sample, an_image(0), [other, row], {"m": "s3"})
    assert '<rect class="box s3" x="1" y="2" width="30" height="40"/>' in case.picture
    x0, y0, x1, y1 = sample.answer.boxes[0].corners
    truth = f'<rect class="box truth" x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}"/>'
    assert truth in case.picture
    assert [reply.mark for reply in case.replies] == ["wrong"]
    assert case.truth == "1 box"


@pytest.mark.parametrize("value", [None, "x", 3, {"a": 1}, [[1, 2, 3]], [["a", 1, 2, 3]], [None]])
def test_what_is_no_box_is_not_drawn(value):
    assert boxes_of(value) == []


def test_truth_in_words():
    assert truth_text([]) == "nothing to find"
    assert truth_text([[0, 0, 1, 1], [1, 1, 2, 2]]) == "2 boxes"
    assert truth_text("HPV") == "HPV"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>b</answer>", ("a", "b")),
        ("<think>never closed", ("never closed", "")),
        ("just words", ("", "just words")),
        ("<think>b is it</think> b", ("b is it", "b")),
        ("", ("", "")),
    ],
)
def test_spoken_shows_the_answer_that_was_graded(text, expected):
    assert spoken(text) == expected


def test_unread_replies_are_marked_even_with_a_score():
    sample = the_samples()[0]
    row = Prediction(
        model="m",
        exam="e",
        sample=sample.id,
        group="g",
        task=sample.task,
        text="x" * 2000,
        grade=Grade(0.0, Status.TRUNCATED),
    )
    reply_shown = case_of(sample, an_image(0), [row], {"m": "s0"}).replies[0]
    assert (reply_shown.mark, reply_shown.status) == ("unread", "truncated")
    assert reply_shown.answer.endswith("(500 more characters)")


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-1.0, 2.0, 1e6], [1e-9, 2e-9], [0.1, 0.30000001]])
def test_charts_keep_the_curve_inside_the_frame(values):
    chart = line_chart(list(enumerate(values)), "loss")
    points = re.search(r'points="([^"]+)"', chart)[1].split()
    assert len(points) == len(values)
    for x, y in (map(float, point.split(",")) for point in points):
        assert 44 <= x <= 290
        assert 10 <= y <= 128


def test_charts_leave_out_what_is_not_finite():
    assert line_chart([(0, math.nan), (1, math.inf)], "loss") == ""
    chart = line_chart([(0, 1.0), (1, math.nan), (2, 3.0)], "loss")
    assert len(re.search(r'points="([^"]+)"', chart)[1].split()) == 2


def test_heat_map_shows_every_count():
    drawn = heat_map(Confusion(("a", "b<"), np.array([[5, 1, 2], [0, 0, 0]])))
    assert re.findall(r'text-anchor="middle">([^<]+)</text>', drawn) == ["5", "1", "2", "·", "·", "·"]
    assert drawn.count('class="cell right"') == 2
    assert drawn.count('class="cell unread"') == 2
    assert "b&lt;" in drawn


def test_gain_bar_tells_a_clear_gain_from_an_unclear_one():
    assert 'class="gain up"' in gain_bar(Estimate(0.2, 0.1, 0.3), 0.3)
    assert 'class="gain down"' in gain_bar(Estimate(-0.2, -0.3, -0.1), 0.3)
    assert 'class="gain even"' in gain_bar(Estimate(0.1, -0.1, 0.3), 0.3)
    assert 'cx="75.0"' in gain_bar(Estimate(0.0), 0.0)


def test_large_images_are_embedded_small():
    drawn = picture(Image.new("RGB", (4000, 2000)), [])
    assert 'viewBox="0 0 4000 2000"' in drawn
    assert len(drawn) < 5000
