"""Which tasks share an adapter, and the wordings that name a group beyond doubt: `task_groups.yaml`."""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import msgspec

from malpighi.errors import ConfigError, DataError
from malpighi.models.phrasings import OTHER
from malpighi.models.templates import TEMPLATES, box_forms
from malpighi.models.versioned import from_yaml
from malpighi.records import TaskKind, option_label

FORMAT_VERSION = 1

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_RESERVED = ("base", "default", OTHER)
LONGEST_TEXT = 4000
"""Characters beyond which a text is read by nothing: a template with a list of thirty options has fewer."""
_LONGEST_OPTION = 100
_SENTENCE_END = re.compile(r"[.?!。？！]\s|[\"“”「」]")
_LABEL = re.compile(r"(?<!\S)\(?([A-Z]{1,2})[.)] ")

_SLOTS = {
    " {boxes}": "(?: (?:{}))?".format(
        "|".join(sorted({re.escape(form) for template in TEMPLATES.values() for form in box_forms(template)}))
    ),
    "{phrase}": '([^.?!;:"“”「」]{1,80})',
    "{question}": '([^"“”「」]{1,300}[.?])',
    "{options}": r"(\(?A[.)] .+?)\.?",
}


class TaskGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tasks that share an adapter.

    Attributes:
        name: of the group and of its adapter's folder.
        tasks: the kinds of task it serves.
        templates: wordings that name it beyond doubt; see `task_groups.yaml` for the slots.
    """

    name: str
    tasks: list[TaskKind]
    templates: list[str] = []


class TaskGroups(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All groups of a router.

    Attributes:
        format_version: of the file.
        groups: the groups; each kind of task is in at most one.
        joins: where a request may go on to a second task.
    """

    format_version: int
    groups: list[TaskGroup]
    joins: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The groups' names, in order."""
        return tuple(group.name for group in self.groups)

    def of_task(self, task: str) -> str:
        """The group of that name, or the group that holds that kind of task; "" where none does.

        Raises:
            ConfigError: neither a group nor a kind of task.
        """
        if task in self.names:
            return task
        if task not in list(TaskKind):
            raise ConfigError(
                f"unknown task '{task}'; the groups are {', '.join(self.names)}, the kinds of task "
                f"{', '.join(TaskKind)}"
            )
        return next((group.name for group in self.groups if task in group.tasks), "")


class Match(NamedTuple):
    """A template found in a text.

    Attributes:
        group: whose template it is.
        template: as it stands in the data.
        fillings: what stands in its slots.
        rest: words of the text outside the template; 0 where it fits the whole text.
    """

    group: str
    template: str
    fillings: tuple[str, ...]
    rest: int


def shipped_groups() -> TaskGroups:
    """The groups that ship with the package: those of SmartPath-R1."""
    return read_groups(
        (resources.files("malpighi.models") / "task_groups.yaml").read_bytes(), "task_groups.yaml"
    )


def load_groups(path: str | Path) -> TaskGroups:
    """Groups of your own, from a file of the form of `task_groups.yaml`.

    Raises:
        DataError: no such file, or not of that form.
        FormatVersionError: a file of another format version.
    """
    try:
        return read_groups(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"cannot read the task groups {path}: {error.strerror}") from error


def read_groups(data: bytes, where: str) -> TaskGroups:
    """Groups from YAML; `where` names the file in errors. See `load_groups`."""
    groups = from_yaml(data, TaskGroups, FORMAT_VERSION, where)
    check_groups(groups, where)
    return groups


def check_groups(groups: TaskGroups, where: str) -> None:
    """Refuse groups that share a task, or whose names cannot be those of adapters.

    Raises:
        DataError: naming the group.
    """
    tasks: dict[str, str] = {}
    for group in groups.groups:
        check_name(group.name, where)
        for task in group.tasks:
            if task in tasks:
                raise DataError(
                    f"{where}: '{task}' is in the groups '{tasks[task]}' and '{group.name}'; keep one"
                )
            tasks[task] = group.name
    if not groups.groups or len(set(groups.names)) < len(groups.groups):
        raise DataError(f"{where}: expected at least one group, each with a name of its own")


def check_name(name: str, where: str) -> None:
    """Refuse a name that cannot be an adapter's.

    Raises:
        DataError: it is reserved, or no plain name.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise DataError(
            f"{where}: '{name}' cannot name an adapter; take small letters, digits, - and _, and none of "
            f"{', '.join(_RESERVED)}"
        )


def find_templates(text: str, groups: Sequence[TaskGroup]) -> list[Match]:
    """The templates that the text is, or that it holds somewhere; those that fit the whole text come first.

    Example:
        >>> found = find_templates("segment  glands in pathology colon.", shipped_groups().groups)
        >>> [(match.group, match.fillings, match.rest) for match in found]
        [('segmentation', ('glands', 'colon'), 0)]
    """
    plain = " ".join(text.split())
    found = []
    for group in groups:
        for template in group.templates:
            pattern = _pattern(template)
            match = re.fullmatch(pattern, plain, re.IGNORECASE)
            if match is None or not _sound(match, template):
                match = re.search(pattern, plain, re.IGNORECASE)
            if match is not None:
                rest = 0
                if match.span() != (0, len(plain)) or not _sound(match, template):
                    rest = len((plain[: match.start()] + " " + plain[match.end() :]).split()) or 1
                found.append(Match(group.name, template, match.groups(), rest))
    return sorted(found, key=lambda one: one.rest)


def _pattern(template: str) -> str:
    pieces = re.split("(" + "|".join(map(re.escape, _SLOTS)) + ")", template)
    return "".join(_SLOTS.get(piece) or re.escape(piece) for piece in pieces)


def _sound(match: re.Match[str], template: str) -> bool:
    """Whether what stands for options is a lettered list and nothing more."""
    if "{options}" not in template:
        return True
    _, *found = _LABEL.split(match.groups()[-1])
    labels, names = found[::2], [name.strip(" ,;") for name in found[1::2]]
    return (
        len(labels) > 1
        and labels == [option_label(i) for i in range(len(labels))]
        and all(0 < len(name) <= _LONGEST_OPTION and not _SENTENCE_END.search(name) for name in names)
    )
