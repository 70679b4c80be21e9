from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tuner.errors import WorkloadError
from tuner.training.datasets import data_folder, fetch

CONTENT = bytes(range(256)) * 40
PACKED = gzip.compress(CONTENT, mtime=0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
UNREACHABLE = "http://127.0.0.1:1/x"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the data folder, empty."""
    monkeypatch.setenv("TUNER_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves ``tmp_path/served`` on this machine and returns its URL."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_compressed_file_is_read_and_decompressed(folder: Path) -> None:
    put(folder, "some/x.gz", gzip.compress(CONTENT))
    assert fetch("some/x.gz", url=UNREACHABLE, sha256=SHA256) == CONTENT


def test_an_archive_is_read_as_it_is(folder: Path) -> None:
    put(folder, "some/x.tar.gz", PACKED)
    packed = hashlib.sha256(PACKED).hexdigest()
    assert fetch("some/x.tar.gz", url=UNREACHABLE, sha256=packed) == PACKED


def test_a_plain_file_is_read_as_it_is(folder: Path) -> None:
    put(folder, "some/x.bin", CONTENT)
    assert fetch("some/x.bin", url=UNREACHABLE, sha256=SHA256) == CONTENT


@pytest.mark.parametrize("level", [1, 9])
def test_the_checksum_is_of_the_content_however_it_is_compressed(folder: Path, level: int) -> None:
    put(folder, "x.gz", gzip.compress(CONTENT, compresslevel=level))
    assert fetch("x.gz", url=UNREACHABLE, sha256=SHA256) == CONTENT


def test_another_checksum_is_refused_with_the_file_and_the_remedy(folder: Path) -> None:
    path = put(folder, "some/x.gz", gzip.compress(CONTENT + b"!"))
    with pytest.raises(WorkloadError, match="Delete it to have it fetched again") as caught:
        fetch("some/x.gz", url=UNREACHABLE, sha256=SHA256)
    assert str(path) in str(caught.value)
    assert SHA256[:12] in str(caught.value)


@pytest.mark.parametrize(
    "damaged",
    [
        b"not compressed",
        PACKED[:-20],
        PACKED[:-8] + b"\x00" * 8,
        # A block of a kind that deflate does not have.
        PACKED[:10] + b"\x07" + PACKED[11:],
    ],
    ids=["not gzip", "cut off", "wrong checksum inside", "invalid block"],
)
def test_a_damaged_file_is_refused_with_the_remedy(folder: Path, damaged: bytes) -> None:
    path = put(folder, "some/x.gz", damaged)
    with pytest.raises(WorkloadError, match="Delete it to have it fetched again") as caught:
        fetch("some/x.gz", url=UNREACHABLE, sha256=SHA256)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["some/x.gz", "x.gz", "some/deeper/x.gz"])
def test_a_missing_file_that_cannot_be_downloaded_says_where_to_put_it(
    folder: Path, name: str
) -> None:
    with pytest.raises(WorkloadError, match="Put the file there") as caught:
        fetch(name, url=UNREACHABLE, sha256=SHA256)
    message = str(caught.value)
    assert f"{folder / name} is missing" in message
    assert UNREACHABLE in message
    assert f"set TUNER_DATA to a folder that holds {name}." in message


def test_a_missing_file_is_downloaded_once(folder: Path, server: str, tmp_path: Path) -> None:
    put(tmp_path / "served", "x.gz", gzip.compress(CONTENT))
    assert fetch("some/x.gz", url=f"{server}/x.gz", sha256=SHA256) == CONTENT
    assert fetch("some/x.gz", url=UNREACHABLE, sha256=SHA256) == CONTENT
    assert [path.name for path in (folder / "some").iterdir()] == ["x.gz"]


def test_a_file_the_server_does_not_have_says_where_to_put_it(server: str, folder: Path) -> None:
    with pytest.raises(WorkloadError, match="Put the file there"):
        fetch("some/x.gz", url=f"{server}/x.gz", sha256=SHA256)
    assert not (folder / "some" / "x.gz").exists()


def test_a_folder_that_cannot_be_made_says_where_the_file_belongs(
    folder: Path, server: str
) -> None:
    folder.write_text("a file in its place", encoding="utf-8")
    with pytest.raises(WorkloadError, match=r"x\.gz is missing"):
        fetch("some/x.gz", url=f"{server}/x.gz", sha256=SHA256)


def test_the_data_folder_is_the_one_configured(folder: Path) -> None:
    assert data_folder() == folder


def test_a_home_in_the_configured_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_DATA", "~/data")
    assert data_folder() == Path.home() / "data"


@pytest.mark.parametrize("value", [None, ""])
def test_without_configuration_it_is_the_platform_s_cache(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("TUNER_DATA")
    else:
        monkeypatch.setenv("TUNER_DATA", value)
    assert data_folder().parts[-2:] == ("tuner", "data")
