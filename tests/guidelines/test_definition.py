import copy
import math

import pytest
import yaml

from malpighi.errors import DataError, FormatVersionError, UserError
from malpighi.guidelines.definition import read_definition
from malpighi.guidelines.findings import State
from malpighi.guidelines.pack import load_pack

SMALL = {
    "format_version": 1,
    "id": "small",
    "guideline": "A guideline",
    "edition": "first",
    "reviewed_by": "none",
    "use": "research",
    "confidence": "low",
    "limits": [],
    "sources": {"book": {"citation": "A book.", "read": "page"}},
    "cell_class": {"question": "Which?", "values": [{"id": "any", "name": "any", "meaning": "any cell"}]},
    "observations": [
        {
            "code": code,
            "name": code,
            "question": f"{code}?",
            "meaning": code,
            "if_present": f"{code} were there",
            "if_absent": f"{code} were not there",
            "abnormal": True,
            "reliability": 0.8,
        }
        for code in ("AA", "BB")
    ],
    "categories": [
        {"id": "LOW", "name": "low", "severity": 0, "branch": "any", "text": "low"},
        {"id": "HIGH", "name": "high", "severity": 1, "branch": "any", "text": "high"},
    ],
    "thresholds": [
        {
            "observation": "AA",
            "measure": "length",
            "unit": "um",
            "definition": "a length",
            "present": "at most",
            "value": 3.0,
            "grey": [2.0, 4.0],
            "source": "our choice",
            "confidence": "low",
        }
    ],
    "rules": [
        {
            "id": "R-1",
            "category": "HIGH",
            "when": "AA and BB",
            "text": "both",
            "cite": ["book"],
            "confidence": "low",
        },
        {
            "id": "R-2",
            "category": "LOW",
            "when": "true",
            "text": "rest",
            "cite": ["our choice"],
            "confidence": "low",
        },
    ],
}


def small(change=None):
    raw = copy.deepcopy(SMALL)
    if change is not None:
        change(raw)
    return raw


def load(raw, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return load_pack(path)


def put(*keys, value):
    def change(raw):
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    return change


def drop(*keys):
    def change(raw):
        for key in keys[:-1]:
            raw = raw[key]
        del raw[keys[-1]]

    return change


def test_a_pack_of_ones_own(tmp_path):
    pack = load(small(), tmp_path)
    assert pack.category({"AA": True, "BB": True}, "any") == "HIGH"
    assert pack.category({"AA": True, "BB": False}, "any") == "LOW"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put("rules", 0, "when", value="AA and XX"), "rule 'R-1': when: column 8: found `XX`"),
        (put("rules", 0, "when", value="AA and and"), "rule 'R-1': when: column 8"),
        (put("rules", 0, "when", value="__import__('os').system('touch pwned')"), "rule 'R-1': when"),
        (put("rules", 0, "when", value=True), "rules: 'R-1'"),
        (put("rules", 0, "cite", value=[]), "rules: 'R-1'"),
        (put("rules", 0, "cite", value=["blog"]), "rule 'R-1': source 'blog'"),
        (drop("rules", 0, "cite"), "rules: 'R-1'.*cite"),
        (put("rules", 0, "category", value="MIDDLE"), "rule 'R-1': category 'MIDDLE'"),
        (put("rules", 0, "confidence", value="total"), "rules: 'R-1'"),
        (put("rules", 0, "weight", value=3), "rules: 'R-1'.*weight"),
        (put("rules", 1, "id", value="R-1"), "rule 'R-1' is defined twice"),
        (put("rules", 1, "when", value="BB"), "no rule holds for a cell of class 'any' with nothing present"),
        (put("rules", value=[]), "rules"),
        (put("categories", 1, "id", value="LOW"), "category 'LOW' is defined twice"),
        (put("observations", 1, "code", value="AA"), "observation 'AA' is defined twice"),
        (put("observations", 0, "code", value="and"), "observations: 'and'"),
        (put("observations", 0, "reliability", value=0.3), "observations: 'AA'"),
        (put("cell_class", "values", value=[]), "cell_class"),
        (put("thresholds", 0, "observation", value="XX"), "threshold of 'XX': no such observation"),
        (put("thresholds", 0, "source", value="blog"), "threshold of 'AA': source 'blog'"),
        (put("thresholds", 0, "value", value=9.0), "threshold of 'AA': value 9.0 is outside"),
        (put("thresholds", 0, "value", value=math.inf), "threshold of 'AA': value inf"),
        (put("use", value="clinical"), "use"),
        (drop("reviewed_by"), "reviewed_by"),
        (put("unheard_of", value=1), "unheard_of"),
    ],
)
def test_a_hostile_pack_is_refused_by_name(change, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=complaint) as caught:
        load(small(change), tmp_path)
    assert "mine.yaml" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a mapping"),
        ("- 1\n- 2\n", "expected a mapping"),
        ("a: [1, 2", "not readable as YAML"),
        ("a: 1\na: 2\n", "'a' is given twice"),
        ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("? [1, 2]\n: 3\n", "not readable as YAML"),
        ("a: &x [1]\nb: *x\n", "aliases are not read"),
        ("a: 2026-99-99\n", "not readable as YAML"),
        ("[" * 5000, "not readable as YAML"),
    ],
)
def test_text_that_is_no_pack_is_refused(text, complaint, tmp_path):
    with pytest.raises(DataError, match=complaint):
        load(text, tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        load_pack(path)


@pytest.mark.parametrize("version", [2, "1", None])
def test_another_format_version_is_refused(version, tmp_path):
    with pytest.raises(FormatVersionError, match=r"mine\.yaml: format_version"):
        load(small(put("format_version", value=version)), tmp_path)


def test_too_many_observations_are_refused(tmp_path):
    def many(raw):
        raw["observations"] = [{**raw["observations"][0], "code": f"O{n}"} for n in range(13)]

    with pytest.raises(DataError, match="observations"):
        load(small(many), tmp_path)


def test_threshold_downwards():
    threshold = read_definition(yaml.safe_dump(SMALL), "mine.yaml").thresholds[0]
    assert [threshold.is_present(value) for value in (2.9, 3.0, 3.1)] == [True, True, False]
    states = [threshold.state(value) for value in (2.0, 2.1, 3.9, 4.0)]
    assert states == [State.PRESENT, State.UNKNOWN, State.UNKNOWN, State.ABSENT]


@pytest.mark.parametrize("edge", [2.0, 4.0])
def test_a_cut_may_lie_on_the_edge_of_its_grey_band(edge):
    raw = small(put("thresholds", 0, "value", value=edge))
    assert read_definition(yaml.safe_dump(raw), "mine.yaml").thresholds[0].value == edge


def test_threshold_refuses_what_is_no_number():
    threshold = read_definition(yaml.safe_dump(SMALL), "mine.yaml").thresholds[0]
    with pytest.raises(DataError, match="length is not a number"):
        threshold.state(math.nan)


def test_accuracy_solves_the_agreement_of_two_equal_raters():
    observation = read_definition(yaml.safe_dump(SMALL), "mine.yaml").observations[0]
    accuracy = observation.accuracy
    assert accuracy > 0.5
    assert accuracy**2 + (1 - accuracy) ** 2 == pytest.approx(observation.reliability)
