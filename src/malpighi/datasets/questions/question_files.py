"""Files of questions: JSON and JSON lines, the images that their rows name, and questions made ready."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from malpighi.datasets.adapter import Asked, Entry, Picture, read_picture, read_text
from malpighi.errors import DataError

ASKED = "asked"
"""Where an entry's `detail` holds its one question, made when the folder was listed."""


def ask_prepared(entry: Entry, _: Picture) -> Iterator[Asked]:
    """The question that the survey made."""
    yield entry.detail[ASKED]


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: missing or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON: {error}") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A JSON list of objects.

    Raises:
        DataError: as `read_json`, or something else than a list of objects.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a list of objects")
    return rows


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number, from 1, with its object, or with what is wrong with it.

    Raises:
        DataError: the file is missing or not text.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield number, row if isinstance(row, dict) else "expected an object"
        except (ValueError, RecursionError) as error:
            yield number, f"not readable JSON: {error}"


def word(row: Mapping[str, Any], *keys: str) -> str:
    """The first of the fields that holds something, as stripped text; "" where none does."""
    for key in keys:
        value = row.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return ""


def needed(row: Mapping[str, Any], *keys: str) -> str:
    """As `word`.

    Raises:
        DataError: none of the fields holds anything.
    """
    found = word(row, *keys)
    if not found:
        raise DataError(f"no {' or '.join(keys)}; found the fields {', '.join(row) or 'none'}")
    return found


def image_below(folder: Path, name: str) -> Path:
    """The image of that name below a folder.

    Raises:
        DataError: the name leads out of the folder, or there is no such file.
    """
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts:
        raise DataError(f"the image name {name!r}; expected a path below {folder.name}")
    path = folder / name
    if not path.is_file():
        raise DataError(f"no image {folder.name}/{name}")
    return path


def one_reading() -> Callable[[Path], Callable[[], Picture]]:
    """Loaders that read an image once for all questions about it that follow one another."""
    read = lru_cache(maxsize=1)(read_picture)
    return lambda path: partial(read, path)


def folder_named(root: Path, *names: str) -> Path:
    """The first of the folders that is there.

    Raises:
        DataError: none is.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"{root}: no folder {' or '.join(names)}")
