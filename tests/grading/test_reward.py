import pytest

from malpighi.errors import ConfigError
from malpighi.grading.reward import DEFAULT_WEIGHTS, reward
from malpighi.records import Grade, Status, TaskKind

GRADE = Grade(0.25, Status.OK, parts={"format": 1.0, "task": 0.25, "ap_tie50": 0.25, "ap_emit50": 1.0})


def test_default_is_task_plus_format():
    assert reward(GRADE, TaskKind.DETECTION) == 1.25
    assert set(DEFAULT_WEIGHTS) == set(TaskKind)


def test_faults_are_weighed_negatively():
    grade = Grade(1.0, Status.OK, parts={"task": 1.0, "format": 1.0, "overlong": 0.25, "repetition": 0.5})
    weights = {TaskKind.CAPTION: {"task": 1.0, "format": 1.0, "overlong": -1.0, "repetition": -0.5}}
    assert reward(grade, TaskKind.CAPTION, weights) == 1.5


def test_own_weights():
    assert reward(GRADE, TaskKind.VQA, {TaskKind.VQA: {"task": 2.0, "format": 0.5}}) == 1.0


def test_weights_that_fit_no_part_or_task_are_refused():
    with pytest.raises(ConfigError, match="dice"):
        reward(GRADE, TaskKind.DETECTION, {TaskKind.DETECTION: {"dice": 1.0}})
    with pytest.raises(ConfigError, match=r"overlong needs Reading\.length"):
        reward(GRADE, TaskKind.DETECTION, {TaskKind.DETECTION: {"overlong": -1.0}})
    with pytest.raises(ConfigError, match="no weights for vqa"):
        reward(GRADE, TaskKind.VQA, {TaskKind.DETECTION: {"task": 1.0}})
