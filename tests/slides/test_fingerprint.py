import numpy as np

from malpighi.slides.fingerprint import fingerprint


def test_a_fingerprint_tells_files_apart(tmp_path):
    rng = np.random.default_rng(1)
    data = rng.bytes(3_000_000)
    path = tmp_path / "a"
    path.write_bytes(data)
    first = fingerprint(path)
    assert first == fingerprint(path)
    for changed in (data[:-1], b"x" + data[1:], data[:-1] + b"x", data + b"x"):
        path.write_bytes(changed)
        assert fingerprint(path) != first
    (tmp_path / "empty").write_bytes(b"")
    folder = tmp_path / "dicom"
    folder.mkdir()
    (folder / "1.dcm").write_bytes(data)
    one = fingerprint(folder)
    (folder / "1.dcm").rename(folder / "2.dcm")
    assert len({one, fingerprint(folder), fingerprint(tmp_path / "empty")}) == 3
