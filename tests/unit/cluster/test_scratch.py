"""Where tests' servers keep their data."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from assistant_cluster import scratch


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is taken for memory, and a machine with 8 GiB free."""
    found = tmp_path / "memory"
    found.mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    8388608 kB\n")
    monkeypatch.setattr(scratch, "MEMORY", found)
    monkeypatch.setattr(scratch, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    return found


def test_data_is_in_memory_while_it_is_used(memory: Path) -> None:
    """The folder carries the process's id and goes in the end."""
    with scratch.scratch_folder("store") as folder:
        assert folder.parent == memory
        assert f"-{os.getpid()}-" in folder.name
        (folder / "data").write_text("x")
    assert not folder.exists()


@pytest.mark.parametrize("why", ["little memory", "no memory file system", "small file system", "TMPDIR"])
def test_the_disk_is_used_where_memory_will_not_do(memory: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """A machine with little memory, a container with a small /dev/shm, or a caller who chose a place."""
    if why == "little memory":
        scratch.MEMINFO.write_text("MemAvailable: 1048576 kB\n")
    elif why == "no memory file system":
        memory.rmdir()
    elif why == "small file system":
        monkeypatch.setattr(scratch, "NEEDED_BYTES", 2**60)
    else:
        monkeypatch.setenv("TMPDIR", str(memory.parent))
    with scratch.scratch_folder("store") as folder:
        assert folder.parent == memory.parent


def test_what_a_killed_process_left_goes(memory: Path) -> None:
    """Memory would fill up otherwise; what a living process uses stays."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = memory / f"{scratch.PREFIX}redis-{ended.pid}-abc"
    used = memory / f"{scratch.PREFIX}redis-{os.getppid()}-abc"
    for folder in (left, used):
        folder.mkdir()
    with scratch.scratch_folder("store"):
        assert (left.exists(), used.exists()) == (False, True)
