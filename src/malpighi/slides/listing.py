"""Which slides a user means: files, folders and patterns, to a list in a fixed order."""

from collections.abc import Iterable, Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from malpighi.errors import ConfigError

ENDINGS = (
    ".svs", ".tif", ".tiff", ".btf", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide",
)  # fmt: skip
_DICOM = ".dcm"


def list_slides(names: Sequence[str]) -> list[Path]:
    """The slides that names mean, each once, sorted within each name.

    Args:
        names: a file; a folder, which is searched through and in which a folder of DICOM files is one slide
            and plain pictures are passed over; or a pattern such as `scans/*.svs` or `scans/**/*.png`.

    Raises:
        ConfigError: a name that means no slide.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            meant = sorted(_within(path))
        elif not path.exists() and has_magic(name):
            meant = sorted(_matching(name))
        else:
            meant = [path]
            if not path.exists():
                raise ConfigError(f"there is no slide {name}; check the path")
        if not meant:
            raise ConfigError(f"{name}: no slides there; expected files such as *{', *'.join(ENDINGS[:5])}")
        found += meant
    return list(dict.fromkeys(found))


def _within(folder: Path) -> Iterator[Path]:
    entries = sorted(folder.iterdir())
    if any(entry.suffix.lower() == _DICOM for entry in entries):
        yield folder
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from _within(entry)
        elif entry.suffix.lower() in ENDINGS and entry.is_file():
            yield entry


def _matching(pattern: str) -> Iterable[Path]:
    for name in glob(pattern, recursive=True):  # noqa: PTH207 - of Path, a pattern cannot be absolute
        path = Path(name)
        if path.is_dir():
            yield from _within(path)
        else:
            yield path
