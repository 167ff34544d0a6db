import json

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from malpighi.config import Settings, digest, leaves, override
from malpighi.errors import ConfigError


class Optim(Settings, frozen=True):
    lr: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.99)
    fused: bool = False


class Run(Settings, frozen=True, kw_only=True):
    size: str = "smoke"
    steps: int = 10
    names: list[str] = msgspec.field(default_factory=list)
    limit: int | None = None
    optim: Optim = Optim()
    stages: dict[str, Optim] = msgspec.field(default_factory=dict)


@pytest.mark.parametrize(
    ("assignment", "read", "value"),
    [
        ("optim.lr=1e-4", lambda run: run.optim.lr, 1e-4),
        ("optim.lr=+2.5E+2", lambda run: run.optim.lr, 250.0),
        ("optim.lr=.5e1", lambda run: run.optim.lr, 5.0),
        ("optim.lr=3", lambda run: run.optim.lr, 3.0),
        ("optim.betas=[0.8, 1e-2]", lambda run: run.optim.betas, (0.8, 0.01)),
        ("optim.fused=true", lambda run: run.optim.fused, True),
        ("steps=-3", lambda run: run.steps, -3),
        ("limit=7", lambda run: run.limit, 7),
        ("limit=null", lambda run: run.limit, None),
        ("size=full", lambda run: run.size, "full"),
        ("size='1e-4'", lambda run: run.size, "1e-4"),
        ('size="12"', lambda run: run.size, "12"),
        ("size=v1.2.3", lambda run: run.size, "v1.2.3"),
        ("size=a=b", lambda run: run.size, "a=b"),
        ("size=", lambda run: run.size, ""),
        (" size = full ", lambda run: run.size, "full"),
        ("names=[a, b c, '1']", lambda run: run.names, ["a", "b c", "1"]),
        ("names=[]", lambda run: run.names, []),
        ("optim={lr: 5}", lambda run: run.optim, Optim(lr=5.0)),
    ],
)
def test_values_are_what_they_look_like(assignment, read, value):
    found = read(override(Run(), [assignment]))
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_read_as_written(number):
    assert override(Run(), [f"optim.lr={number!r}"]).optim.lr == number


@given(st.text(st.characters(codec="utf-8")))
def test_any_quoted_text_stays_text(text):
    quoted = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**9)
    assert override(Run(), [f"size={quoted}"]).size == text


def test_later_assignments_win_and_the_rest_stays():
    assert override(Run(steps=3), ["size=a", "size=b", "optim.lr=1"]) == Run(
        steps=3, size="b", optim=Optim(lr=1.0)
    )
    assert override(Run(steps=3), []) == Run(steps=3)


def test_a_setting_inside_a_dict():
    run = Run(stages={"first": Optim(), "second": Optim()})
    changed = override(run, ["stages.second.lr=2"])
    assert changed.stages == {"first": Optim(), "second": Optim(lr=2.0)}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("optim.lrr=1", ["'optim.lrr'", "did you mean lr?"]),
        ("optm.lr=1", ["'optm'", "did you mean optim?"]),
        ("zzz=1", ["'zzz'", "known here: limit, names, optim, size, stages, steps"]),
        ("size.x=1", ["'size.x'", "known here: nothing"]),
        ("stages.third.lr=1", ["'stages.third'"]),
        ("optim.=1", ["'optim.'", "known here: betas, fused, lr"]),
        ("steps", ["'steps'", "a.b=c"]),
        ("=3", ["'=3'", "a.b=c"]),
        ("steps=1.5", ["steps: Expected `int`, got `float`"]),
        ("optim.lr=fast", ["optim.lr: Expected `float`, got `str`"]),
        ("optim.betas=[1, x]", ["optim.betas[1]: Expected `float`"]),
        ("optim.fused=1", ["optim.fused: Expected `bool`"]),
        ("size=12", ["size: Expected `str`"]),
        ("optim={lr: 5, warmup: 3}", ["optim", "warmup"]),
        ("names=[a", ["not readable", "quote it"]),
    ],
)
def test_what_cannot_be_set_is_told(assignment, words):
    with pytest.raises(ConfigError) as caught:
        override(Run(), [assignment])
    for word in words:
        assert word in str(caught.value)


def test_a_configuration_does_not_change():
    run = Run(names=["a"], stages={"first": Optim()})
    override(run, ["names=[b]", "stages.first.lr=9", "optim.lr=9"])
    assert run == Run(names=["a"], stages={"first": Optim()})
    with pytest.raises(AttributeError):
        run.steps = 5
    with pytest.raises(AttributeError):
        run.optim.lr = 5.0
    with pytest.raises(TypeError, match="stepz"):
        Run(stepz=5)


def test_leaves_are_dotted_and_in_order():
    assert list(leaves(Run(names=["a"], stages={"first": Optim(lr=2.0)}))) == [
        ("size", "smoke"),
        ("steps", 10),
        ("names", ["a"]),
        ("limit", None),
        ("optim.lr", 1e-3),
        ("optim.betas", (0.9, 0.99)),
        ("optim.fused", False),
        ("stages.first.lr", 2.0),
        ("stages.first.betas", (0.9, 0.99)),
        ("stages.first.fused", False),
    ]
    assert ("stages", {}) in leaves(Run())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(child) for child in value] if isinstance(value, list) else value


@given(JSON)
def test_the_order_of_keys_does_not_count(value):
    assert digest(value) == digest(reordered(value))


@given(JSON, JSON)
def test_another_value_has_another_digest(one, other):
    # As text, because Python's `==` does not tell True from 1.
    assert (digest(one) == digest(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def test_what_a_digest_sees():
    assert digest("a", "b") != digest("ab")
    assert digest("a", "b") != digest("b", "a")
    assert digest(["a", "b"]) != digest(["b", "a"])
    assert digest(Run()) == digest(Run(steps=10))
    assert digest(Run()) != digest(Run(steps=11))
    assert digest(Run()) != digest(override(Run(), ["optim.lr=1e-4"]))
    assert digest() == digest()
    assert len(digest("a")) == 16
    assert int(digest("a"), 16)


def test_a_digest_is_the_same_in_every_release():
    assert digest("malpighi", 1, {"b": [1.5, None], "a": True}) == "259ae031af0c532a"
