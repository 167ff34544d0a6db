import errno

import pytest

from malpighi.durable import mending, replacing
from malpighi.errors import UserError


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "table.bin"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["table.bin"]


def test_a_file_cut_short_leaves_the_old_one(tmp_path):
    path = tmp_path / "table.bin"
    path.write_bytes(b"old")

    def stopped():
        with replacing(path) as file:
            file.write(b"half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.bin"]


def test_failures_of_the_disk_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="free space"), mending(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="check the folder"), mending(tmp_path):
        raise OSError(errno.EIO, "Input/output error")


def test_other_errors_pass(tmp_path):
    with pytest.raises(KeyError), mending(tmp_path):
        raise KeyError("x")
