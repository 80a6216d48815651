"""What the demo asks of this machine: a cluster, images in it, and a folder for what it leaves behind.

The only module that knows the package `assistant_cluster`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assistant_demo.errors import DemoError
from assistant_demo.installation import ROOT

PARTS = ("operator", "gateway", "api", "demo")


def folder() -> Path:
    """Where a checkout keeps its kubeconfig, addresses and logs."""
    return ROOT / ".cluster"


def shown(path: Path) -> str:
    """Return a path as the user would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


@contextmanager
def only_one() -> Iterator[None]:
    """Let one demo run at a time in a checkout; the lock goes with the process, however it ends."""
    folder().mkdir(exist_ok=True)
    descriptor = os.open(folder() / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError("Another `make demo` or `make down` runs in this checkout. Wait until it ends.") from None
        yield
    finally:
        os.close(descriptor)
