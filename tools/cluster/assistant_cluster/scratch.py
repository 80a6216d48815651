"""Where the servers of integration tests keep their data: in memory where there is enough of it.

etcd waits for the disk with every write, and Debian's cannot be told not to: 5 ms on the disk where that was measured,
4 us in memory. A test's data need not outlive its machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "assistant-test-"
MEMORY = Path("/dev/shm")  # noqa: S108 - checked below, and folders in it are made by mkdtemp
NEEDED_BYTES = 2 * 2**30  # of the file system; four API servers and as many stores were seen to use a third of that
AVAILABLE_BYTES = 4 * 2**30  # of the machine's memory
MEMINFO = Path("/proc/meminfo")


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A temporary folder that is named after this process: what a killed process left behind can be told, and goes."""
    root = _root()
    for place in {root, Path(tempfile.gettempdir())}:
        for old in place.glob(f"{PREFIX}*"):
            owner = old.name.split("-")[-2]
            if owner.isdigit() and not Path("/proc", owner).exists():
                shutil.rmtree(old, ignore_errors=True)  # another user's stays: it cannot be removed
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-{os.getpid()}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _root() -> Path:
    """Memory if there is enough of it, and the caller did not set TMPDIR."""
    usable = "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK)
    enough = usable and shutil.disk_usage(MEMORY).free >= NEEDED_BYTES and _available() >= AVAILABLE_BYTES
    return MEMORY if enough else Path(tempfile.gettempdir())


def _available() -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
