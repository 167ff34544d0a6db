"""Stored files that state their format version: read in one way, refused in one way."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from malpighi.errors import DataError, FormatVersionError

T = TypeVar("T", bound=msgspec.Struct)


def from_yaml(data: bytes, kind: type[T], version: int, where: str) -> T:
    """A struct from YAML that people write.

    Args:
        data: the file's bytes.
        kind: what it should hold.
        version: the `format_version` that this release reads.
        where: names the file in errors.

    Raises:
        DataError: no YAML, or not of that form.
        FormatVersionError: of another version.
    """
    try:
        tree = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeError) as error:
        raise DataError(f"{where} is no YAML: {error}") from error
    return _checked(tree, kind, version, where, "write it anew in that format")


def from_json(path: Path, kind: type[T], version: int, remedy: str) -> T:
    """A struct from JSON that a program wrote.

    Args:
        path: the file.
        kind: what it should hold.
        version: the `format_version` that this release reads.
        remedy: what to do where the file cannot be read.

    Raises:
        DataError: no such file, no JSON, or not of that form.
        FormatVersionError: of another version.
    """
    try:
        tree = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path.parent} holds no {path.name}; {remedy}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise DataError(f"{path} is no JSON: {error}; {remedy}") from error
    return _checked(tree, kind, version, str(path), remedy)


def _checked(tree: Any, kind: type[T], version: int, where: str, remedy: str) -> T:
    found = tree.get("format_version") if isinstance(tree, dict) else None
    if found != version:
        raise FormatVersionError(f"{where} is of format {found}, this release reads {version}; {remedy}")
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{where} does not hold what it should: {error}; {remedy}") from error
