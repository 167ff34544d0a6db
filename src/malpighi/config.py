"""Settings: frozen structs that can be overridden by `a.b=c`, hashed, saved and read back.

A configuration is a msgspec Struct made by a recipe's function. No per-field command-line flags: one generic
`--set a.b=c` reaches every field, and the resolved whole is saved beside the run.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec
import yaml

from malpighi.errors import ConfigError

C = TypeVar("C", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parent of every configuration: immutable, unknown names refused."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as a string; a person means the number, unless it is quoted."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def override(config: C, assignments: Sequence[str]) -> C:
    """The configuration with `a.b=c` assignments applied, in order.

    The right-hand side is read as YAML, so `lr=1e-4`, `size=smoke` and `steps=[1, 2]` do what they look like.

    Raises:
        ConfigError: no such field (near names are suggested), or a value of the wrong type.

    Example:
        >>> class Optim(Settings):
        ...     lr: float = 1e-3
        >>> class Run(Settings):
        ...     optim: Optim = Optim()
        >>> override(Run(), ["optim.lr=2e-4"]).optim.lr
        0.0002
    """
    tree = msgspec.to_builtins(config)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator or not path.strip():
            raise ConfigError(
                f"--set {assignment!r} is not of the form a.b=c; write for example --set size=smoke"
            )
        _assign(tree, path.strip(), _value(text, assignment))
    try:
        return msgspec.convert(tree, type(config))
    except msgspec.ValidationError as error:
        where = str(error).rpartition("`$")[2].strip("`.") or "the configuration"
        raise ConfigError(
            f"--set {' '.join(assignments)}: {where}: {str(error).partition(' - at')[0]}"
        ) from error


def leaves(config: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    """Every setting as (dotted path, value), in order of definition.

    Example:
        >>> class Optim(Settings):
        ...     lr: float = 1e-3
        >>> list(leaves(Optim()))
        [('lr', 0.001)]
    """
    yield from _walk("", msgspec.to_builtins(config))


def digest(*parts: Any) -> str:
    """Hash of structs, strings and plain values in canonical JSON: 16 hexadecimal characters.

    Example:
        >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
        True
    """
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:16]


def _value(text: str, assignment: str) -> Any:
    try:
        return yaml.load(text, _Loader) if text.strip() else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {assignment!r}: the value is not readable ({error}); quote it") from error


def _assign(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    node: Any = tree
    for index, name in enumerate(parents):
        node = _step(node, name, ".".join(parents[: index + 1]))
    _step(node, last, path)
    node[last] = value


def _step(node: Any, name: str, path: str) -> Any:
    if isinstance(node, dict) and name in node:
        return node[name]
    known = sorted(node) if isinstance(node, dict) else []
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(known) or 'nothing'}"
    raise ConfigError(f"there is no setting '{path}'; {hint}")


def _walk(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for name, child in node.items():
            yield from _walk(f"{path}.{name}" if path else str(name), child)
    else:
        yield path, node
