"""Downloads, from a publisher that is a server of this test."""

import dataclasses
import functools
import hashlib
import http.server
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistant_cluster.download import DownloadError, fetch, find_checksum
from assistant_cluster.tools import TOOLS, Download, Tool

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which its files can be had."""
    folder = tmp_path / "publisher"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def tool(address: str, member: str | None = None, file: str = "helm-{version}-{bare}") -> Tool:
    download = Download(f"{address}/{file}", f"{address}/{file}.sha256", member)
    return dataclasses.replace(TOOLS["helm"], version="v1.2.3", download=download)


def publish(folder: Path, name: str, content: bytes, digest: str | None = None) -> None:
    (folder / name).write_bytes(content)
    (folder / f"{name}.sha256").write_text(f"{digest or hashlib.sha256(content).hexdigest()}  {name}\n")


def archive(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_a_program_with_the_right_checksum_is_kept_and_runnable(publisher: tuple[Path, str], tmp_path: Path) -> None:
    """The version fills the address, with and without its v."""
    folder, address = publisher
    publish(folder, "helm-v1.2.3-1.2.3", b"program")
    fetch(tool(address), "helm", tmp_path / "helm")
    assert (tmp_path / "helm").read_bytes() == b"program"
    assert (tmp_path / "helm").stat().st_mode & 0o111


def test_a_program_is_taken_out_of_its_archive(publisher: tuple[Path, str], tmp_path: Path) -> None:
    """Only the named member is used, whatever else an archive would like to write."""
    folder, address = publisher
    publish(folder, "helm-v1.2.3-1.2.3", archive("./linux/helm", b"inside"))
    fetch(tool(address, "linux/helm"), "helm", tmp_path / "helm")
    assert (tmp_path / "helm").read_bytes() == b"inside"


@pytest.mark.parametrize(
    ("content", "digest", "member", "message"),
    [
        (b"tampered", DIGEST, None, "its publisher says " + DIGEST),
        (b"not an archive", None, "helm", "not a readable archive"),
        (archive("other", b""), None, "helm", "holds no helm"),
    ],
    ids=["tampered", "no archive", "no member"],
)
def test_a_wrong_file_is_refused(
    publisher: tuple[Path, str], tmp_path: Path, content: bytes, digest: str | None, member: str | None, message: str
) -> None:
    """Another checksum, a broken archive or one without the program leave no file and say what is wrong."""
    folder, address = publisher
    publish(folder, "helm-v1.2.3-1.2.3", content, digest)
    with pytest.raises(DownloadError, match=message):
        fetch(tool(address, member), "helm", tmp_path / "helm")
    assert not (tmp_path / "helm").exists()


def test_an_absent_file_and_an_unreachable_publisher_are_told_apart(
    publisher: tuple[Path, str], tmp_path: Path
) -> None:
    """A person must know whether to look at the version or at the network."""
    with pytest.raises(DownloadError, match="answered 404"):
        fetch(tool(publisher[1]), "helm", tmp_path / "helm")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(DownloadError, match="not reachable"):
            fetch(tool(f"http://127.0.0.1:{taken.getsockname()[1]}"), "helm", tmp_path / "helm")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DIGEST, DIGEST),
        (f"{DIGEST.upper()}\n", DIGEST),
        (f"{'f' * 64}  other\n{DIGEST}  file\n", DIGEST),
        (f"{DIGEST} *dist/file\n", DIGEST),
        (f"{DIGEST}  other\n", None),
        ("<html>not found</html>", None),
        ("", None),
    ],
)
def test_checksum_files_of_every_publisher_are_read(text: str, expected: str | None) -> None:
    """Bare digests and lists of names; a list without our file gives nothing."""
    assert find_checksum(text, "file") == expected
