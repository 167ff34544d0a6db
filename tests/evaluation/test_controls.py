import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from malpighi.errors import ConfigError
from malpighi.evaluation.controls import (
    blanked,
    control_name,
    controls_of,
    permutable,
    permuted,
    strangers,
)
from malpighi.geometry import View
from malpighi.models.prompt import Prompt
from malpighi.records import (
    Choice,
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


def a_sample(number, **changes):
    sample = Sample(
        id=f"toy/{number}",
        dataset="toy",
        exam="toy/class",
        task=TaskKind.CLASSIFICATION,
        scale=Scale.CELL,
        images=(ImageRef(f"{number:064x}", (10, 20)),),
        turns=(Turn("user", "Which?"),),
        answer=Choice(number % 3),
        options=("a", "b", "c"),
        group=f"patient{number // 2}",
        licence="CC0-1.0",
        provenance=Provenance("test"),
    )
    return msgspec.structs.replace(sample, **changes)


def row(model, number, parsed, status=Status.OK, options=("a", "b", "c")):
    sample = a_sample(number)
    right = sample.options[sample.answer.index]
    score = float(status is Status.OK and parsed is not None and options[parsed] == right)
    return Prediction(
        model=model,
        exam=sample.exam,
        sample=sample.id,
        group=sample.group,
        task=sample.task,
        text="",
        grade=Grade(score, status, parsed),
        truth={"index": options.index(right), "options": list(options)},
    )


def test_a_blank_image_keeps_size_and_mean_colour_and_is_another_prompt():
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3] = (200, 100, 0)
    prompt = Prompt("s", (Turn("user", "?"),), (Image.fromarray(pixels),), (View((60, 40), (6, 4)),), "d")
    blank = blanked(prompt)
    assert blank.images[0].size == (6, 4)
    assert blank.images[0].getcolors() == [(24, (100, 50, 0))]
    assert blank.digest != "d"
    assert blank.views == prompt.views
    assert blank.turns == prompt.turns
    assert [ref.size for ref in blank.refs] == [(6, 4)]
    assert blanked(blank).refs == blank.refs


def test_a_stranger_is_of_the_same_exam_and_another_patient_and_image():
    samples = [a_sample(n) for n in range(12)] + [a_sample(n, exam="toy/other") for n in range(20, 26)]
    found = strangers(samples)
    assert set(found) == {sample.id for sample in samples}
    for sample in samples:
        other = found[sample.id]
        assert other.exam == sample.exam
        assert other.group != sample.group
        assert other.images != sample.images
    assert strangers(samples[::-1]) == found


def test_without_another_patient_another_image_does_and_without_one_none():
    one_group = [a_sample(n, group="g") for n in range(4)]
    assert all(other.images != s.images for s in one_group for other in [strangers(one_group)[s.id]])
    one_image = [a_sample(n, images=one_group[0].images) for n in range(4)]
    assert strangers(one_image) == {}
    two = [a_sample(0), a_sample(1, images=(ImageRef("x", (1, 1)), ImageRef("y", (1, 1))))]
    assert strangers(two) == {}, "an image is not put in the place of two"
    assert strangers([a_sample(0, images=()), a_sample(5, images=())]) == {}


@given(st.integers(2, 40), st.data())
def test_permuted_options_are_the_same_options_with_the_same_answer(count, data):
    names = tuple(f"option {n}" for n in range(count))
    right = data.draw(st.integers(0, count - 1))
    sample = a_sample(data.draw(st.integers(0, 99)), options=names, answer=Choice(right))
    turned = permuted(sample)
    assert turned.options != names
    assert sorted(turned.options) == sorted(names)
    assert turned.options[turned.answer.index] == names[right]
    assert permuted(sample) == turned
    assert turned.id == sample.id


def test_what_can_be_permuted():
    assert permutable(a_sample(0))
    assert not permutable(a_sample(0, options=("Yes", "no"), answer=Choice(0)))
    assert not permutable(a_sample(0, options=("a",), answer=Choice(0)))
    for tied in ("All of the above", "Both A and B", "A or C", "None of the above", "(A) and (B)"):
        assert not permutable(a_sample(0, options=("mucosa", "serosa", tied), answer=Choice(0))), tied
    for free in ("Vitamin A and retinol", "hepatitis B", "B and T cells"):
        assert permutable(a_sample(0, options=("mucosa", "serosa", free), answer=Choice(0))), free
    assert not permutable(a_sample(0, options=("a", "a", "b"), answer=Choice(0)))
    assert not permutable(a_sample(0, options=(), answer=Text("a")))


def test_a_model_that_looks_and_one_that_does_not():
    right = [row("sees", n, n % 3) for n in range(60)]
    blank = [row("sees@blank", n, 0) for n in range(60)]
    found = controls_of("sees", [*right, *blank])
    (look,) = found.looks
    assert (look.control, look.exam, look.warning) == ("blank", "toy/class", "")
    assert look.difference.estimate.value == pytest.approx(2 / 3)
    assert look.difference.p < 0.001
    blind = controls_of("blind", [row(m, n, 0) for m in ("blind", "blind@mismatched") for n in range(60)])
    (look,) = blind.looks
    assert look.difference.estimate.value == 0
    assert "not clearly better with the image than with another sample's image" in look.warning


def test_consistency_counts_names_and_not_letters():
    turned = ("c", "a", "b")
    rows = [row("m", n, 0) for n in range(4)]
    same = [row("m@permuted", n, 1, options=turned) for n in range(2)]
    letter = [row("m@permuted", 2, 0, options=turned)]
    unread = [row("m@permuted", 3, None, Status.NO_ANSWER, options=turned)]
    found = controls_of("m", [*rows, *same, *letter, *unread])
    assert [(c.exam, c.n, c.share.value) for c in found.consistency] == [("toy/class", 4, 0.5)]
    both_unread = [row(m, 9, None, Status.MALFORMED) for m in ("m", "m@permuted")]
    assert controls_of("m", both_unread).consistency[0].share.value == 0.0


def test_several_exams_are_told_apart_and_together():
    rows = [row(m, n, n % 3) for m in ("m", "m@blank") for n in range(8)]
    rows = [msgspec.structs.replace(r, exam=f"toy/{r.sample[-1] < '4'}") for r in rows]
    assert [look.exam for look in controls_of("m", rows).looks] == ["toy/True", "toy/False", "all exams"]
    assert controls_of("m", rows[:8]).looks == ()


def test_names_of_controls():
    assert control_name("m", "blank") == "m@blank"
    with pytest.raises(ConfigError, match="known: blank, mismatched, permuted"):
        control_name("m", "noise")
