import json

import numpy as np
import pytest
from PIL import Image

from malpighi.errors import ConfigError
from malpighi.grading.grade import Reading
from malpighi.grading.grade_files import grade_files
from malpighi.grading.published import Mode

SAMPLES = [
    {"id": "1", "task": "classification", "options": ["Tumor", "Stroma"], "answer": "B"},
    {"id": "2", "task": "vqa", "answer": "hyaline cartilage"},
    {"id": "3", "task": "vqa", "answer": "yes"},
    {
        "id": "4",
        "task": "detection",
        "image_size": [200, 100],
        "answer": [[10, 10, 30, 30]],
        "frame": "relative1000",
    },
    {"id": "5", "task": "segmentation", "answer": "mask.png"},
]
COMPLETIONS = [
    {"id": "1", "text": "<think>pale</think><answer>(B) Stroma</answer>"},
    {"id": "2", "text": "<think>pale</think><answer>hyaline cartilage</answer>"},
    {"id": "3", "text": "The cell is normal"},
    {"id": "4", "text": "<think>one</think><answer>[[50, 100, 150, 300]]</answer>"},
    {"id": "5", "text": "<think>left</think><answer>[[0, 0, 2, 4]]</answer>"},
]


@pytest.fixture
def files(tmp_path):
    """Writes the two files and returns (samples, completions, grades)."""
    mask = np.zeros((4, 4), np.uint8)
    mask[:, :2] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")

    def write(samples=SAMPLES, completions=COMPLETIONS):
        paths = [tmp_path / name for name in ("samples.jsonl", "completions.jsonl", "grades.jsonl")]
        for path, rows in zip(paths, (samples, completions), strict=False):
            lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
            path.write_bytes(b"\n".join(lines) + b"\n")
        return paths

    return write


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def failed(paths):
    return [(row["id"], row["reason"]) for row in rows_of(paths[2].with_name("grades.jsonl.failures.jsonl"))]


def test_every_kind_of_row_is_graded(files):
    paths = files()
    done = grade_files(*paths)
    rows = rows_of(paths[2])
    assert [row["id"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["score"] for row in rows] == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert [row["status"] for row in rows] == ["ok", "ok", "no_answer", "ok", "ok"]
    assert rows[0]["parsed"] == 1
    assert rows[2]["parsed"] is None
    assert rows[3]["parsed"] == [[10.0, 10.0, 30.0, 30.0]]
    assert rows[1]["parts"]["format"] == rows[1]["parts"]["exact"] == 1.0
    assert (done.failures, done.failed) == ((), None)
    assert {task.task: task.score for task in done.tasks}["vqa"] == 0.5
    assert sorted(path.name for path in paths[2].parent.iterdir()) == [
        "completions.jsonl", "grades.jsonl", "mask.png", "samples.jsonl",
    ]  # fmt: skip


def test_the_paper_s_mode_gives_the_paper_s_scores(files):
    paths = files()
    grade_files(*paths, Reading(mode=Mode.PAPER))
    assert [row["score"] for row in rows_of(paths[2])] == [1.0, 0.0, 0.0, 1.0, 1.0]


def test_several_completions_of_a_sample_keep_their_order(files):
    paths = files(SAMPLES[:1], [{"id": "1", "text": text} for text in "BAB"])
    grade_files(*paths)
    assert [row["score"] for row in rows_of(paths[2])] == [1.0, 0.0, 1.0]


def test_a_truncated_completion_is_counted_as_such(files):
    paths = files(SAMPLES[:1], [{"id": "1", "text": "<think>so B", "truncated": True}])
    grade_files(*paths)
    assert rows_of(paths[2])[0]["status"] == "truncated"


def test_bad_lines_are_recorded_and_the_rest_goes_on(files):
    samples = [b"\xef\xbb\xbf" + json.dumps(SAMPLES[0]).encode(), b"nonsense", b"", SAMPLES[0], SAMPLES[1]]
    completions = [
        COMPLETIONS[0],
        b'{"id": "1"}',
        {"id": "9", "text": "B"},
        b"\xff",
        b'{"id": 1, "text": "\\ud800"}',
    ]
    paths = files(samples, completions)
    done = grade_files(*paths)
    found = dict(failed(paths))
    assert [row["id"] for row in rows_of(paths[2])] == ["1", "2"]
    assert rows_of(paths[2])[1] == {**rows_of(paths[2])[1], "score": 0.0, "status": "no_answer"}
    assert list(found) == ["samples.jsonl:2", "samples.jsonl:4", "completions.jsonl:2", "completions.jsonl:3",
                           "completions.jsonl:4", "completions.jsonl:5", "2"]  # fmt: skip
    assert "given before" in found["samples.jsonl:4"]
    assert "no usable sample has the id '9'" in found["completions.jsonl:3"]
    assert "counted as wrong" in found["2"]
    assert len(done.failures) == 7
    again = grade_files(*files())
    assert again.failed is None
    assert not paths[2].with_name("grades.jsonl.failures.jsonl").exists()


def test_a_mask_of_another_size_than_stated_fails_alone(files, tmp_path):
    paths = files([SAMPLES[0], {**SAMPLES[4], "image_size": [9, 9]}], COMPLETIONS[:1])
    grade_files(*paths)
    assert [name for name, _ in failed(paths)] == ["samples.jsonl:2"]


def test_files_that_cannot_be_used_are_refused(files, tmp_path):
    samples, completions, out = files()
    with pytest.raises(ConfigError, match="both read and written"):
        grade_files(samples, completions, samples)
    with pytest.raises(ConfigError, match=r"cannot read .*none"):
        grade_files(tmp_path / "none", completions, out)
    with pytest.raises(ConfigError, match=r"cannot read .*none"):
        grade_files(samples, tmp_path / "none", out)
    samples.write_text("nonsense\n")
    with pytest.raises(ConfigError, match=r"holds no sample .* samples.jsonl:1"):
        grade_files(samples, completions, out)
    assert not out.exists()


def test_the_command(malpighi, files):
    samples, completions, out = files()
    code, told, err = malpighi("grade", samples, completions, "-o", out)
    assert (code, err) == (0, "")
    assert "segmentation" in told
    assert len(rows_of(out)) == 5
    code, told, _ = malpighi("grade", samples, completions, "-o", out, "--mode", "paper", "--json")
    summary = json.loads(told)
    assert (code, summary["mode"], summary["failures"]) == (0, "paper", [])
    assert {task["task"]: task["score"] for task in summary["tasks"]}["vqa"] == 0.0
    malpighi("grade", samples, completions, "-o", out, "--guideline", "tbs")
    assert rows_of(out)[0]["parts"]["inconsistent"] == 0.0


def test_the_command_s_exit_status(malpighi, files, tmp_path):
    samples, completions, out = files(SAMPLES, [*COMPLETIONS, b"nonsense"])
    code, told, _ = malpighi("grade", samples, completions, "-o", out)
    assert code == 3
    assert "completions.jsonl:6" in told
    code, told, _ = malpighi("grade", samples, completions, "-o", out, "--json")
    assert (code, len(json.loads(told)["failures"])) == (3, 1)
    for arguments in (
        (samples, tmp_path / "none", "-o", out),
        (samples, completions, "-o", tmp_path / "no" / "such" / "grades"),
        (samples, completions, "-o", out, "--mode", "strict"),
        (samples, completions),
        (samples, completions, "-o", out, "--guideline", "paris"),
    ):
        code, told, err = malpighi("grade", *arguments)
        assert (code, told) == (2, "")
        assert "Traceback" not in err
