import hashlib
import io
import json
import zipfile
from dataclasses import replace

import msgspec
import pytest

from malpighi.datasets import archives
from malpighi.datasets import download as room
from malpighi.datasets.catalogue import ADAPTERS, adapter_named
from malpighi.datasets.download import (
    Address,
    Sites,
    Source,
    check_licence,
    download,
    licence_note,
    source_of,
    sources,
)
from malpighi.datasets.transfer import Patience
from malpighi.errors import DataError, LicenceError, UserError

QUICK = Patience(timeout=1, attempts=3, backoff=0)


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """Fetch a data set from a source that the test gives."""

    def call(source, name="bccd", folder="set", **more):
        monkeypatch.setattr(room, "sources", lambda: {name: source})
        adapter = replace(adapter_named("bccd"), name=name)
        sites = Sites(server.url, server.url)
        return download(adapter, tmp_path / folder, patience=QUICK, sites=sites, **more)

    return call


@pytest.fixture
def record(server):
    """A Zenodo record of these files, as its interface answers."""

    def put(files, **more):
        listed = []
        for name, data in files.items():
            server.files[f"/api/records/7/files/{name}/content"] = data
            listed.append(
                {
                    "id": "x",
                    "key": name,
                    "size": len(data),
                    "checksum": f"md5:{hashlib.md5(data).hexdigest()}",
                    "links": {"self": f"{server.url}/api/records/7/files/{name}/content"},
                }
            )
        tree = {"id": 7, "metadata": {"license": {"id": "cc-by-4.0"}}, "files": listed, **more}
        server.put_json("/api/records/7", tree)

    return put


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_record_is_fetched_checked_and_unpacked(get, record, server, tmp_path):
    record(
        {
            "TRAIN.zip": zipped({"MSIH/1.png": b"1", "nonMSIH/1.png": b"2"}),
            "TEST.zip": zipped({"TEST/MSIH/1.png": b"3"}),
            "README.md": b"not asked for",
        }
    )
    told = []
    source = Source(zenodo=7, files=("T*.zip",))
    done = get(source, progress=lambda *step: told.append(step))
    found = tree(tmp_path / "set")
    receipt = json.loads(found.pop(".download.json"))
    assert found == {"TRAIN/MSIH/1.png": b"1", "TRAIN/nonMSIH/1.png": b"2", "TEST/MSIH/1.png": b"3"}
    assert {name for name, _, _ in told} == {"TRAIN.zip", "TEST.zip"}
    assert msgspec.convert(receipt, type(done)) == done
    assert done.stated == "cc-by-4.0"
    assert done.page == "https://zenodo.org/records/7"
    assert done.unpacked == 3
    assert all(file.checksum.startswith("md5:") for file in done.files)
    asked = len(server.asked)
    assert get(source) == done
    assert len(server.asked) == asked, "what is there is asked for again"


def test_broken_off_and_called_again_it_goes_on(get, record, server, tmp_path, pauses):
    data = zipped({"set/1.bin": bytes(range(256)) * 4000})
    record({"a.zip": data, "b.zip": data})
    path = "/api/records/7/files/b.zip/content"
    server.faults[path] = [("cut", 700_000), ("cut", 10), ("cut", 10)]
    with pytest.raises(DataError, match="is kept, try again to go on"):
        get(Source(zenodo=7))
    left = tree(tmp_path / "set")
    assert sorted(left) == ["a.zip", "b.zip.part"]
    server.asked.clear()
    get(Source(zenodo=7))
    assert server.asked == [("/api/records/7", ""), (path, f"bytes={len(left['b.zip.part'])}-")]


def test_a_repository_of_the_hub_with_folders_and_checksums(get, server, tmp_path):
    data, table = b"PAR1 and more", b'{"id": 1}\n'
    server.put_json(
        "/api/datasets/me/set/tree/main?recursive=true",
        [
            {"type": "directory", "path": "data", "size": 0},
            {"type": "file", "path": "data/train 0.parquet", "size": len(data),
             "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}},
            {"type": "file", "path": "MM/test.jsonl", "size": len(table)},
            {"type": "file", "path": ".gitattributes", "size": 3},
        ],
    )  # fmt: skip
    server.files["/datasets/me/set/resolve/main/data/train%200.parquet"] = data
    server.files["/datasets/me/set/resolve/main/MM/test.jsonl"] = table
    done = get(Source(hub="me/set", files=("data/*.parquet", "MM/test.jsonl"), unpack=False))
    found = tree(tmp_path / "set")
    assert found["data/train 0.parquet"] == data
    assert found["MM/test.jsonl"] == table
    assert [bool(file.checksum) for file in done.files] == [True, False]


def test_plain_addresses_with_names_and_checksums(get, server, tmp_path):
    data = zipped({"Set-master/BCCD/1.txt": b"1"})
    server.files["/zip/refs/heads/master"] = data
    address = Address(
        f"{server.url}/zip/refs/heads/master", "set.zip", sha256=hashlib.sha256(data).hexdigest()
    )
    get(Source(urls=(address,), drop_top=True))
    assert tree(tmp_path / "set")["BCCD/1.txt"] == b"1"
    with pytest.raises(DataError, match="gave another file than published"):
        get(Source(urls=(Address(address.url, "set.zip", md5="0" * 32),)), folder="other")
    assert tree(tmp_path / "other") == {}


def test_a_record_without_the_file_says_what_there_is(get, record):
    record({"renamed.zip": b"x"})
    with pytest.raises(DataError, match=r"records/7 has no file TRAIN\.zip; there are: renamed\.zip"):
        get(Source(zenodo=7, files=("TRAIN.zip",)))


@pytest.mark.parametrize("key", ["../evil.zip", "/etc/evil.zip", "a\\b.zip", ".download.json"])
def test_a_server_cannot_name_a_file_out_of_the_folder(get, record, tmp_path, key):
    record({key: b"x"})
    with pytest.raises(DataError, match="a path out of the folder; nothing was fetched"):
        get(Source(zenodo=7))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("answer", [{}, [], {"files": [{"key": "a.zip"}]}, {"files": None}])
def test_a_list_of_another_form_is_one_error(get, server, answer):
    server.put_json("/api/records/7", answer)
    with pytest.raises(DataError, match="not as expected"):
        get(Source(zenodo=7))


def test_an_archive_that_leads_out_of_the_folder_leaves_nothing_unpacked(get, record, tmp_path):
    record({"set.zip": zipped({"set/1.png": b"1", "../evil.png": b"2"})})
    with pytest.raises(DataError, match="path out of its folder"):
        get(Source(zenodo=7))
    assert list(tree(tmp_path)) == ["set/set.zip"]


def test_room_is_looked_at_first(get, record, server, tmp_path, monkeypatch):
    record({"set.zip": zipped({"set/1.bin": bytes(5000)})})
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=9000))
    with pytest.raises(UserError, match="fetching the data set needs"):
        get(Source(zenodo=7))
    assert [path for path, _ in server.asked] == ["/api/records/7"]


@pytest.mark.parametrize(
    ("licence", "use", "doubt"),
    [
        ("CC BY-NC 4.0", "research", "its use is: research"),
        ("not verified (Zenodo record)", "any", "not verified"),
        ("MIT (assumed)", "any", "not verified"),
    ],
)
def test_a_doubtful_licence_is_refused_until_it_is_accepted(licence, use, doubt):
    adapter = replace(adapter_named("bccd"), licence=licence, use=use)
    with pytest.raises(LicenceError, match=f"{doubt}.*--accept-licence"):
        check_licence(adapter, accepted=False)
    check_licence(adapter, accepted=True)
    assert licence in licence_note(adapter)


def test_nothing_is_asked_before_the_licence_is_accepted(server, tmp_path):
    with pytest.raises(LicenceError):
        download(adapter_named("pathvqa"), tmp_path / "set", sites=Sites(server.url, server.url))
    assert server.asked == []
    assert not (tmp_path / "set").exists()


def test_a_free_licence_needs_no_word():
    check_licence(adapter_named("bccd"), accepted=False)


def test_a_data_set_without_a_direct_address_says_how_to_get_it():
    with pytest.raises(
        DataError, match=r"gated: accept the terms.*huggingface\.co/datasets/jamessyx/PathMMU"
    ):
        source_of(adapter_named("pathmmu"))


def test_the_table_names_one_place_per_data_set_and_only_secure_or_known_ones():
    for name, source in sources().items():
        assert (source.zenodo is not None) + bool(source.hub) + bool(source.urls) == 1, name
        assert source.page.startswith(("https://", "http://www.inf.ufpr.br")), name
        assert all(not address.md5 or len(address.md5) == 32 for address in source.urls), name
    assert {"bccd", "arch", "pathvqa", "medxpertqa_mm", "omnimedvqa"} <= sources().keys() & ADAPTERS.keys()
