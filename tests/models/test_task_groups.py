import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.errors import ConfigError, DataError
from malpighi.models.task_groups import find_templates, load_groups, shipped_groups
from malpighi.models.templates import BOX_UNITS, TEMPLATES
from malpighi.records import option_label

GROUPS = shipped_groups().groups
NAMES = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=20)


def found(text):
    return [(match.group, match.rest) for match in find_templates(text, GROUPS)]


@settings(deadline=None)
@given(NAMES, NAMES)
def test_every_way_of_asking_for_boxes_is_a_template(target, place):
    for template in TEMPLATES.values():
        for unit in BOX_UNITS.values():
            for verb, group in (("Detect", "detection"), ("Segment", "segmentation")):
                asked = f"{verb} {target} in pathology {place}.\n{template.boxes.format(unit=unit)}"
                assert found(asked) == [(group, 0)]
                assert found(asked + " Thanks.") == [(group, 1)]


@settings(deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=30))
def test_every_lettered_list_is_read(names):
    start = "Classify this pathological image into one of these classes: "
    for template in TEMPLATES.values():
        options = template.separator.join(
            template.option.format(label=option_label(i), name=name) for i, name in enumerate(names)
        )
        assert found(start + options) == [("classification", 0)]
        swapped = options.replace("A", "B", 1)
        assert all(rest for _, rest in found(start + swapped))


def test_a_template_amid_other_words_is_found_with_what_surrounds_it():
    assert found("He said: Segment glands in pathology colon.") == [("segmentation", 2)]
    assert found("Segment glands") == []


def test_tasks_name_their_group():
    groups = shipped_groups()
    assert [groups.of_task(task) for task in ("segmentation", "vqa", "caption")] == [
        "segmentation",
        "vqa",
        "",
    ]
    with pytest.raises(ConfigError, match="unknown task 'x'"):
        groups.of_task("x")


HEAD = "format_version: 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "groups: []", "at least one group"),
        (
            HEAD + "groups: [{name: a, tasks: [vqa]}, {name: b, tasks: [vqa]}]",
            "'vqa' is in the groups 'a' and 'b'",
        ),
        (HEAD + "groups: [{name: a, tasks: []}, {name: a, tasks: []}]", "a name of its own"),
        (HEAD + "groups: [{name: A/b, tasks: [vqa]}]", "'A/b' cannot name an adapter"),
        (HEAD + "groups: [{name: base, tasks: [vqa]}]", "'base' cannot name an adapter"),
        (HEAD + "groups: [{name: a, tasks: [counting]}]", "counting"),
    ],
)
def test_groups_that_cannot_be_used_are_explained(tmp_path, text, message):
    path = tmp_path / "groups.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_groups(path)


def test_missing_groups_are_named(tmp_path):
    with pytest.raises(DataError, match="cannot read the task groups"):
        load_groups(tmp_path / "groups.yaml")
