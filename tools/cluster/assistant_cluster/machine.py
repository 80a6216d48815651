"""What nodes change on the machine outside their own namespaces, written down before it is done, undone by the last.

Shared by all nodes of a machine: a second node finds what the first one made, and must not lose it when the first one
goes.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from assistant_cluster import kubeconfig
from assistant_cluster.layout import STATE_ROOT
from assistant_cluster.progress import Progress

MODULES = ("br_netfilter", "overlay")


class Machine:
    """One machine, with the record of its changes in `root`. Callers of the methods that change hold `lock`."""

    def __init__(self, root: Path = STATE_ROOT) -> None:
        self._root = root
        self._record = root / "machine-changes.json"
        self._lock = root / "lock"

    @contextlib.contextmanager
    def lock(self, progress: Progress) -> Iterator[None]:
        """One `up` or `down` at a time on this machine, also from other checkouts."""
        file = self._open_lock()
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("Another process is starting or stopping a node, waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had it may have removed the file: then this lock would guard nothing.
            while not self._is_current(file):
                os.close(file)
                file = self._open_lock()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
            if [entry.name for entry in self._root.iterdir()] == [self._lock.name]:
                self._lock.unlink()
                self._root.rmdir()
        finally:
            os.close(file)

    def _open_lock(self) -> int:
        while True:
            # The last node's `down` may remove the folder at any moment, also while `mkdir` looks whether it is one.
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                return os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _is_current(self, file: int) -> bool:
        try:
            return os.fstat(file).st_ino == self._lock.stat().st_ino
        except FileNotFoundError:
            return False

    def make_folders(self, paths: Iterable[str]) -> None:
        """Make mount points that this machine lacks."""
        record = self._read()
        for path in paths:
            missing = [folder for folder in (Path(path), *Path(path).parents) if not folder.exists()]
            for folder in reversed(missing):
                record["folders"].append(str(folder))
                self._write(record)
                folder.mkdir(mode=0o755, exist_ok=True)

    def set_switch(self, switch: Path, value: str) -> None:
        """Set a kernel switch, such as forwarding on the device of the default route."""
        former = switch.read_text().strip()
        if former == value:
            return
        record = self._read()
        record["switches"].setdefault(str(switch), former)
        self._write(record)
        switch.write_text(value)

    def undo_after_the_last_node(self) -> None:
        """Put everything back unless a node is left; folders only if they are empty: somebody may use them by now."""
        if list(self._root.glob("node*")):
            return
        record = self._read()
        for switch, value in record["switches"].items():
            if Path(switch).exists():
                Path(switch).write_text(value)
        for folder in reversed(record["folders"]):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        self._record.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        record: dict[str, Any] = {"folders": [], "switches": {}}
        with contextlib.suppress(OSError, ValueError):
            record |= json.loads(self._record.read_text())
        return record

    def _write(self, record: dict[str, Any]) -> None:
        kubeconfig.replace(self._record, json.dumps(record, indent=1))


def load_modules() -> None:
    """Load the kernel modules that a node needs, where they are modules; they stay loaded, as after any `modprobe`."""
    if Path("/proc/sys/net/bridge").exists() and "overlay" in Path("/proc/filesystems").read_text():
        return
    if program := shutil.which("modprobe"):
        subprocess.run([program, "--all", *MODULES], capture_output=True, timeout=30, check=False)
