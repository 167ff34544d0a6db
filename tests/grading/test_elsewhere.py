"""The reward functions, called as each trainer calls them."""

import inspect
import json

import pytest

from malpighi.errors import ConfigError, DataError
from malpighi.grading.elsewhere import RewardFunctions
from malpighi.grading.published import Mode
from malpighi.grading.reward import DEFAULT_WEIGHTS
from malpighi.records import TaskKind

ROWS = [
    json.dumps({"id": 1, "task": "classification", "options": ["Tumor", "Stroma"], "answer": "B"}),
    json.dumps({"id": 2, "task": "detection", "image_size": [99, 99], "answer": [[1, 1, 9, 9]]}),
    json.dumps({"id": 3, "task": "vqa", "answer": "no"}),
]
TEXTS = [
    "<think>x</think><answer>B</answer>",
    "<think>x</think><answer>[[1, 1, 9, 9], [50, 50, 60, 60]]</answer>",
    "The cell is normal",
]
ROBUST = [2.0, 1.5, 0.0]
PAPER = [2.0, 2.0, 0.0]
PLAIN, PUBLISHED = RewardFunctions(), RewardFunctions(mode=Mode.PAPER)


def told_to_trl():
    """Everything that TRL's GRPOTrainer passes: prompts, tokens, columns and its own helpers."""
    return {
        "prompts": [[{"role": "user", "content": "?"}]] * 3,
        "completions": [[{"role": "assistant", "content": text}] for text in TEXTS],
        "completion_ids": [[5] * 90, [5] * 100, [5] * 110],
        "sample": ROWS,
        "image": [None] * 3,
        "trainer_state": object(),
        "log_extra": print,
        "log_metric": print,
    }


def test_trl():
    assert PLAIN.trl(**told_to_trl()) == ROBUST
    assert PUBLISHED.trl(**told_to_trl()) == PAPER
    assert PLAIN.trl(**told_to_trl() | {"completions": TEXTS, "completion_ids": None}) == ROBUST
    assert PLAIN.trl.__name__ == "trl", "TRL logs a reward function under its name"
    assert not inspect.iscoroutinefunction(PLAIN.trl)


def test_trl_tells_length_and_end():
    weights = {task: {"task": 1.0, "overlong": -1.0} for task in TaskKind}
    rewards = RewardFunctions(weights, limit=100, buffer=20)
    assert rewards.trl(**told_to_trl()) == [1.0 - 0.5, 0.5 - 1.0, 0.0 - 1.0]
    ended = RewardFunctions(end_ids=(7,))
    cut = {"completions": ["B", "[[1, 1, 9, 9]]", "no"], "completion_ids": [[5, 7], [5], []]}
    assert ended.trl(**told_to_trl() | cut) == [1.0, 0.0, 0.0]


def test_ms_swift():
    """Completions go by position; every column comes as a list, with some of its own."""
    columns = {
        "sample": ROWS,
        "messages": [[]] * 3,
        "images": [[]] * 3,
        "trainer_state": object(),
        "finish_reason": ["stop"] * 3,
        "is_truncated": [False] * 3,
        "response_token_ids": [[1], [1, 2], [[1], [2]]],
    }
    assert PLAIN.swift(TEXTS, **columns) == ROBUST
    reward = PLAIN.swift_orm(args=object())
    assert reward(TEXTS, **columns) == ROBUST
    assert PLAIN.swift(["B", "[]", "no"], **columns | {"is_truncated": [True] * 3}) == [0.0] * 3
    short = RewardFunctions({task: {"overlong": -1.0} for task in TaskKind}, limit=2, buffer=2)
    assert short.swift(TEXTS, **columns) == [-0.5, -1.0, -1.0]


def test_verl():
    for text, row, value in zip(TEXTS, ROWS, ROBUST, strict=True):
        result = PLAIN.verl(
            data_source="malpighi",
            solution_str=text,
            ground_truth=row,
            extra_info={"index": 3},
            reward_router_address="",
        )
        assert result["score"] == value
        assert set(result) == {"score", "task", "format", "read"}, "verl wants the same keys of every result"
        assert PLAIN.verl("malpighi", text, row)["score"] == value
        assert (
            PLAIN.verl(data_source="malpighi", solution_str=text, ground_truth=row, extra_info=None) == result
        )
    batch = PLAIN.verl_batch(
        data_sources=["malpighi"] * 3, solution_strs=TEXTS, ground_truths=ROWS, extra_infos=[None] * 3
    )
    assert [result["score"] for result in batch] == ROBUST
    with pytest.raises(ConfigError, match="dapo reward manager"):
        RewardFunctions(limit=100).verl("malpighi", TEXTS[0], ROWS[0])


def test_easyr1():
    inputs = [
        {"response": text, "response_length": tokens, "ground_truth": row}
        for text, row, tokens in zip(TEXTS, ROWS, (90, 100, 110), strict=True)
    ]
    results = PLAIN.easyr1(inputs)
    assert [result["overall"] for result in results] == ROBUST
    assert [result["accuracy"] for result in results] == [1.0, 0.5, 0.0]
    assert [result["read"] for result in results] == [1.0, 1.0, 0.0]
    assert PLAIN.easyr1_one(inputs[0]) == results[0]
    weights = {task: {**parts, "overlong": -1.0} for task, parts in DEFAULT_WEIGHTS.items()}
    long = RewardFunctions(weights, limit=100, buffer=20)
    assert [result["overall"] for result in long.easyr1(inputs)] == [1.5, 0.5, -1.0]


def test_a_row_that_is_none_is_refused():
    with pytest.raises(DataError, match="not a sample"):
        PLAIN.verl("malpighi", "B", "B")
    with pytest.raises(ConfigError, match="expected a sample row as a JSON string"):
        PLAIN.verl("malpighi", "B", {"answer": "B"})


def test_a_weighed_length_that_nobody_tells_is_refused():
    weights = {task: {"overlong": -1.0} for task in TaskKind}
    with pytest.raises(ConfigError, match="overlong needs"):
        RewardFunctions(weights).trl(**told_to_trl())
