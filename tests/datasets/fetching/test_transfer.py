import hashlib
import os

import httpx
import pytest

from malpighi.datasets.transfer import Patience, RemoteFile, fetch, get_json
from malpighi.errors import ConfigError, DataError, UserError

DATA = os.urandom(300_000)
SIZE = len(DATA)
MD5 = f"md5:{hashlib.md5(DATA).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
QUICK = Patience(timeout=0.3, attempts=4, backoff=0.5)


@pytest.fixture
def get(server, tmp_path, pauses):
    """Fetch `/a.bin` of the server; gives back the path."""

    def call(checksum=MD5, size=SIZE, patience=QUICK, progress=lambda *_: None):
        server.files.setdefault("/a.bin", DATA)
        with httpx.Client(timeout=patience.timeout) as client:
            remote = RemoteFile("sub/a.bin", f"{server.url}/a.bin", size, checksum)
            return fetch(client, remote, tmp_path, patience, progress)

    return call


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("checksum", "size"), [(MD5, len(DATA)), (SHA256, None), ("", len(DATA)), ("", None)]
)
def test_a_whole_file(get, tmp_path, checksum, size):
    told = []
    path = get(checksum, size, progress=lambda *step: told.append(step))
    assert path == tmp_path / "sub/a.bin"
    assert path.read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]
    assert told[-1] == ("sub/a.bin", len(DATA), len(DATA))


def test_what_is_there_and_right_is_not_asked_for_again(get, server):
    get()
    get()
    assert len(server.asked) == 1


def test_another_file_of_that_name_is_left_alone(get, server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="is not the published file: 4 bytes, expected 300000"):
        get()
    assert (tmp_path / "sub/a.bin").read_bytes() == b"mine"
    assert server.asked == []


def test_a_cut_is_gone_on_with_where_it_was(get, server, pauses):
    server.faults["/a.bin"] = [("cut", 100_000), ("cut", 50_000), None]
    assert get().read_bytes() == DATA
    assert server.asked == [("/a.bin", ""), ("/a.bin", "bytes=100000-"), ("/a.bin", "bytes=150000-")]
    assert len(pauses) == 2
    assert 0.5 <= pauses[0] < 0.6
    assert 1.0 <= pauses[1] < 1.2


def test_a_later_call_goes_on_with_what_an_earlier_one_left(get, server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.bin.part").write_bytes(DATA[:123_456])
    assert get().read_bytes() == DATA
    assert server.asked == [("/a.bin", "bytes=123456-")]


def test_a_part_that_is_whole_already_needs_no_bytes(get, server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.bin.part").write_bytes(DATA)
    assert get(size=None).read_bytes() == DATA
    assert get().read_bytes() == DATA
    assert len(server.asked) == 1


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * 400_000])
def test_a_part_of_another_file_costs_one_more_try_and_no_more(get, server, tmp_path, left):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.bin.part").write_bytes(left)
    assert get(size=None).read_bytes() == DATA
    assert server.asked[-1] == ("/a.bin", "")


def test_without_a_checksum_a_later_call_begins_anew(get, server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.bin.part").write_bytes(b"of another file")
    assert get(checksum="").read_bytes() == DATA
    assert server.asked == [("/a.bin", "")]


def test_without_a_checksum_only_a_strong_tag_lets_a_cut_be_gone_on_with(get, server, tmp_path):
    server.faults["/a.bin"] = [("cut", 100_000), None]
    assert get(checksum="").read_bytes() == DATA
    assert server.asked[-1] == ("/a.bin", "")
    (tmp_path / "sub/a.bin").unlink()
    server.etags["/a.bin"] = '"v1"'
    server.faults["/a.bin"] = [("cut", 100_000), None]
    assert get(checksum="").read_bytes() == DATA
    assert server.asked[-1] == ("/a.bin", "bytes=100000-")
    (tmp_path / "sub/a.bin").unlink()
    server.etags["/a.bin"] = 'W/"v1"'
    server.faults["/a.bin"] = [("cut", 100_000), None]
    assert get(checksum="").read_bytes() == DATA
    assert server.asked[-1] == ("/a.bin", "")


def test_a_file_that_changes_between_tries_is_not_mixed(get, server):
    server.etags["/a.bin"] = '"old"'
    server.files["/a.bin"] = b"o" * len(DATA)
    server.faults["/a.bin"] = [("cut", 100_000), None]

    def change(*_):
        server.etags["/a.bin"] = '"new"'
        server.files["/a.bin"] = DATA

    assert get(checksum="", progress=change).read_bytes() == DATA


def test_a_server_that_knows_no_ranges_is_asked_from_the_start(get, server):
    server.faults["/a.bin"] = [("cut", 100_000), "no range", None]
    assert get().read_bytes() == DATA


def test_a_wrong_checksum_leaves_nothing(get, server, tmp_path):
    server.files["/a.bin"] = b"y" * len(DATA)
    with pytest.raises(DataError, match=r"gave another file than published: md5 .*, expected"):
        get()
    assert names(tmp_path) == []
    assert len(server.asked) == 1


def test_more_bytes_than_published_are_refused(get, server, tmp_path):
    server.files["/a.bin"] = DATA + b"more"
    with pytest.raises(DataError, match="gives more than the 300000 bytes"):
        get()
    assert not (tmp_path / "sub/a.bin").exists()
    server.files["/a.bin"] = DATA
    assert get().read_bytes() == DATA


@pytest.mark.parametrize(
    ("status", "words"), [(404, "may have moved"), (410, "moved"), (403, "account"), (401, "account")]
)
def test_what_will_not_pass_is_not_tried_again(get, server, pauses, status, words):
    server.faults["/a.bin"] = [status, None]
    with pytest.raises(DataError, match=words):
        get()
    assert len(server.asked) == 1
    assert pauses == []


def test_a_busy_server_is_asked_again_and_heeded(get, server, pauses):
    server.faults["/a.bin"] = [(429, {"Retry-After": "7"}), 500, (503, {"Retry-After": "99999"}), None]
    assert get().read_bytes() == DATA
    assert len(server.asked) == 4
    assert 7 <= pauses[0] < 7.8
    assert pauses[2] == 120.0


def test_a_server_that_stays_busy_ends_in_one_error(get, server, pauses):
    server.faults["/a.bin"] = [500] * 9
    with pytest.raises(DataError, match="no whole file after 4 tries: the server answered 500"):
        get()
    assert len(server.asked) == 4
    assert len(pauses) == 3


def test_a_server_that_stalls_is_left_and_what_came_is_kept(get, server, tmp_path):
    server.faults["/a.bin"] = [("stall", 100_000), None]
    assert get().read_bytes() == DATA
    assert server.asked[-1] == ("/a.bin", "bytes=100000-")
    (tmp_path / "sub/a.bin").unlink()
    server.faults["/a.bin"] = [("stall", 100_000)] + [("stall", 0)] * 9
    with pytest.raises(DataError, match=r"ReadTimeout.*a\.bin\.part is kept"):
        get()
    assert (tmp_path / "sub/a.bin.part").stat().st_size == 100_000


def test_nobody_there_is_one_error(tmp_path, pauses):
    with httpx.Client(timeout=1) as client, pytest.raises(DataError, match="after 4 tries: Connect"):
        fetch(client, RemoteFile("a.bin", "http://127.0.0.1:9/a.bin"), tmp_path, QUICK, lambda *_: None)
    assert len(pauses) == 3


def test_a_folder_that_cannot_be_written_to_is_the_users_to_mend(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with httpx.Client() as client, pytest.raises(UserError, match="cannot write in"):
        fetch(client, RemoteFile("a", f"{server.url}/a"), tmp_path / "file", QUICK, lambda *_: None)


def test_a_list_that_is_no_json_is_asked_for_again(server, pauses):
    server.files["/list"] = b"<html>"
    with httpx.Client() as client, pytest.raises(DataError, match="no usable answer after 4 tries"):
        get_json(client, f"{server.url}/list", QUICK)
    server.put_json("/list", {"files": []})
    server.faults["/list"] = [502, None]
    with httpx.Client() as client:
        assert get_json(client, f"{server.url}/list", QUICK) == {"files": []}


def test_patience_that_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="attempts=0"):
        Patience(attempts=0)
