"""Processes that are measured: pinned to a core, counted with their children, ended by their ids, never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
START_SECONDS = 120.0
STOP_SECONDS = 10.0
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def tree(pid: int) -> list[int]:
    """A process and all below it, as far as they live."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [member for child in children.read_text().split() for member in tree(int(child))]
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process tree so far, those of its members that have ended included."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(ticks) for ticks in fields[11:15])  # own and of children that were waited for
    return total / TICK


def resident(pid: int) -> float:
    """Memory of a process tree in MiB."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError, IndexError):
            total += int(Path(f"/proc/{member}/status").read_text().split("VmRSS:")[1].split()[0])
    return total / 1024


def mapped(pid: int, name: str) -> bool:
    """Whether a file whose path holds `name` is mapped into a process."""
    return name in Path(f"/proc/{pid}/maps").read_text()


def pin(core: int, pid: int = 0) -> None:
    """Keep a process, and what it will start, on one core."""
    os.sched_setaffinity(pid, {core})


def answers(url: str) -> bool:
    """Whether a GET is answered 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@dataclass
class Process:
    """One started process."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    started: float  # monotonic
    ready_seconds: float = 0.0

    @property
    def pid(self) -> int:
        """Its id."""
        return self.popen.pid

    def tail(self) -> str:
        """The end of its log."""
        return "\n  ".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until it is ready, and note how long that took."""
        started = self.started
        while not ready():
            if self.popen.poll() is not None:
                raise SystemExit(f"{self.name} ended with code {self.popen.returncode}:\n  {self.tail()}")
            if time.monotonic() - started > START_SECONDS:
                raise SystemExit(f"{self.name} is not ready after {START_SECONDS:.0f} s:\n  {self.tail()}")
            time.sleep(0.01)
        self.ready_seconds = time.monotonic() - started

    def stop(self) -> None:
        """End it and what it has started."""
        members = tree(self.pid)
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(STOP_SECONDS)
        for member in members:
            if member != self.pid and _parent_is_gone(member):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(STOP_SECONDS)


def _parent_is_gone(pid: int) -> bool:
    """Whether a child of ours still runs after its parent has ended (its number may have been given anew since)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[1]) in {1, os.getpid()}


def spawn(name: str, command: Sequence[str], environment: dict[str, str], folder: Path, core: int) -> Process:
    """Start a process on one core; the kernel ends it should this process die. Its log is in `folder`."""

    def prepare() -> None:
        pin(core)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    folder.mkdir(parents=True, exist_ok=True)
    log, started = folder / f"{name}.log", time.monotonic()
    base = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder), "NO_PROXY": "*"}
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            env={**base, **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the benchmark: it decides when its processes end
            preexec_fn=prepare,  # noqa: PLW1509  # no threads but the stub's, which hold no locks here
        )
    return Process(name, popen, log, started)


@contextlib.contextmanager
def running(process: Process, ready: Callable[[], bool]) -> Iterator[Process]:
    """Wait until a process is ready; end it at the end."""
    try:
        process.wait_ready(ready)
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"assistant-bench-{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
