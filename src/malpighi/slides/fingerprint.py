"""What tells one slide file from another, without reading gigabytes."""

import hashlib
from pathlib import Path

_SAMPLES, _SAMPLE_BYTES = 16, 65_536


def fingerprint(path: Path) -> str:
    """What tells a slide file from another: SHA-256 over its length and 16 pieces of 64 KiB of it.

    A whole slide takes minutes to hash; this takes milliseconds. It tells files apart, it does not prove that
    no byte changed. Of a folder (DICOM), over the names and pieces of all its files.

    Returns:
        64 hexadecimal characters.
    """
    total = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            total.update(file.relative_to(path).as_posix().encode() + b"\0")
        length = file.stat().st_size
        total.update(length.to_bytes(8, "little"))
        with file.open("rb") as data:
            for number in range(_SAMPLES):
                data.seek(max(length - _SAMPLE_BYTES, 0) * number // (_SAMPLES - 1))
                total.update(data.read(_SAMPLE_BYTES))
    return total.hexdigest()
