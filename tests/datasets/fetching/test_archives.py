import io
import os
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.datasets import archives
from malpighi.datasets.archives import is_archive, stem_of, unpack
from malpighi.errors import DataError, UserError


def make_zip(path, files, links=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            out.writestr(info, "/etc/passwd")


def make_tar(path, files, links=()):
    with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            out.addfile(info)


FORMATS = [
    ("set.zip", make_zip),
    ("set.tar", make_tar),
    ("set.tar.gz", make_tar),
    ("set.tar.bz2", make_tar),
    ("set.tar.xz", make_tar),
]
each = pytest.mark.parametrize(("name", "make"), FORMATS)


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@each
def test_an_archive_with_one_outer_folder(tmp_path, name, make):
    make(tmp_path / name, {"TRAIN/a/1.png": b"1", "TRAIN/2.png": b"22", "__MACOSX/TRAIN/._2.png": b"x"})
    (tmp_path / "out").mkdir()
    found = unpack(tmp_path / name, tmp_path / "out")
    assert found == (2, 0)
    assert tree(tmp_path / "out") == {"TRAIN/a/1.png": b"1", "TRAIN/2.png": b"22"}


@each
def test_an_archive_without_one_gets_a_folder_of_its_name(tmp_path, name, make):
    make(tmp_path / name, {"MSIH/1.png": b"1", "nonMSIH/1.png": b"2"})
    unpack(tmp_path / name, tmp_path)
    (tmp_path / name).unlink()
    assert tree(tmp_path) == {"set/MSIH/1.png": b"1", "set/nonMSIH/1.png": b"2"}


@each
def test_an_outer_folder_that_names_a_version_is_left_out(tmp_path, name, make):
    make(tmp_path / name, {"Set-master/BCCD/1.png": b"1"})
    unpack(tmp_path / name, tmp_path, drop_top=True)
    (tmp_path / name).unlink()
    assert tree(tmp_path) == {"BCCD/1.png": b"1"}


@each
@pytest.mark.parametrize(
    "bad", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "a\\..\\out.txt", "C:out.txt"]
)
def test_a_path_out_of_the_folder_is_refused_and_nothing_unpacked(tmp_path, name, make, bad):
    folder = tmp_path / "in"
    folder.mkdir()
    make(tmp_path / name, {"good/1.png": b"1", bad: b"evil"})
    with pytest.raises(DataError, match="a path out of its folder; nothing was unpacked"):
        unpack(tmp_path / name, folder)
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", name]


@each
def test_links_are_left_out_and_counted(tmp_path, name, make):
    make(tmp_path / name, {"set/1.png": b"1"}, links=("set/link", "set/other"))
    assert unpack(tmp_path / name, tmp_path) == (1, 2)
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@each
def test_a_damaged_archive_leaves_nothing(tmp_path, name, make):
    make(tmp_path / name, {f"set/{n}.bin": os.urandom(20_000) for n in range(4)})
    data = (tmp_path / name).read_bytes()
    for broken in (data[: len(data) // 2], data[:30_000] + bytes(2_000) + data[32_000:], b"garbage" * 99):
        if name == "set.tar" and len(broken) == len(data):
            continue  # a plain tar has no checksum over what it holds
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(DataError, match="damaged or no archive"):
            unpack(tmp_path / name, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    make_zip(tmp_path / "set.zip", {"set/1.png": b"1"})
    (tmp_path / ".unpacking-set.zip/set").mkdir(parents=True)
    (tmp_path / ".unpacking-set.zip/set/half.png").write_bytes(b"half")
    unpack(tmp_path / "set.zip", tmp_path)
    (tmp_path / "set.zip").unlink()
    assert tree(tmp_path) == {"set/1.png": b"1"}


def test_unpacking_again_replaces_and_two_archives_share_a_folder(tmp_path):
    make_zip(tmp_path / "a.zip", {"set/1.png": b"1", "set/x/2.png": b"2"})
    make_zip(tmp_path / "b.zip", {"set/x/3.png": b"3"})
    (tmp_path / "out").mkdir()
    for name in ("a.zip", "b.zip", "a.zip"):
        unpack(tmp_path / name, tmp_path / "out")
    assert sorted(tree(tmp_path / "out")) == ["set/1.png", "set/x/2.png", "set/x/3.png"]


def test_too_little_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    make_zip(tmp_path / "set.zip", {"set/1.bin": bytes(5000)})
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=4999))
    with pytest.raises(UserError, match=r"unpacking set\.zip needs"):
        unpack(tmp_path / "set.zip", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_names_of_archives(tmp_path):
    assert [stem_of(tmp_path / name) for name in ("TRAIN.zip", "a.b.tar.gz", "x.TGZ")] == [
        "TRAIN",
        "a.b",
        "x",
    ]
    assert not is_archive(tmp_path / "table.csv.gz")


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=30))
def test_whatever_a_member_is_called_it_stays_inside_or_is_refused(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "set.tar"
    try:
        make_tar(path, {name: b"1"})
    except (UnicodeError, ValueError):
        return
    out = folder / "out"
    out.mkdir()
    try:
        unpack(path, out)
    except UserError:
        assert list(out.iterdir()) == []
    assert sorted(p.name for p in folder.iterdir()) == ["out", "set.tar"]
