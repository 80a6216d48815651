"""Processes on this machine, identified by pid and start time.

A pid alone is not an identity: it is used again, and killing a recorded pid an hour later may hit somebody else's
program. The kernel's start time (clock ticks since boot) makes the pair unique until the machine restarts.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from assistant_cluster.progress import wait_until

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process that was seen alive."""

    pid: int
    start: int

    @property
    def alive(self) -> bool:
        """True while this very process runs (a zombie does not run)."""
        return start_ticks(self.pid) == self.start

    def signal(self, number: int) -> None:
        """Send a signal if it is still the same process."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot; None for no process or a zombie (proc(5), /proc/pid/stat field 22)."""
    try:
        # The command name may hold spaces and brackets: fields are counted from its last bracket.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def identify(pid: int) -> Process | None:
    """The running process with this pid."""
    start = start_ticks(pid)
    return None if start is None else Process(pid, start)


def pids() -> Iterator[int]:
    """Every pid visible here."""
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def running_executable(path: Path) -> list[Process]:
    """Processes whose program file is `path`."""
    found = []
    for pid in pids():
        with contextlib.suppress(OSError):
            target = (PROC / str(pid) / "exe").readlink()
            if str(target).removesuffix(" (deleted)") == str(path) and (process := identify(pid)):
                found.append(process)
    return found


def namespace(pid: int, kind: str) -> str | None:
    """Identity of a process's namespace, such as `pid:[4026531836]`."""
    with contextlib.suppress(OSError):
        return str((PROC / str(pid) / "ns" / kind).readlink())
    return None


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process is another one, or its child, or its child's child and so on."""
    while pid > 1 and pid != ancestor:
        try:
            pid = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return False
    return pid == ancestor


def in_pid_namespace(inside: str) -> list[int]:
    """Pids (as seen here) of the processes that live directly in a pid namespace."""
    return [pid for pid in pids() if namespace(pid, "pid") == inside]


def pid_seen_here(inner: int, inside: str) -> int | None:
    """Translate a pid of another pid namespace into ours."""
    for pid in in_pid_namespace(inside):
        with contextlib.suppress(OSError):
            for line in (PROC / str(pid) / "status").read_text().splitlines():
                if line.startswith("NSpid:") and int(line.split()[-1]) == inner:
                    return pid
    return None


def resident_bytes(pid: int) -> int:
    """Resident memory; 0 when the process is gone."""
    with contextlib.suppress(OSError):
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def stop(processes: Iterable[Process], *, grace: float = 10) -> None:
    """Ask with SIGTERM, wait, then SIGKILL; returns when all are gone."""
    remaining = [process for process in processes if process.alive]
    for process in remaining:
        process.signal(signal.SIGTERM)
    if not wait_until(lambda: not any(process.alive for process in remaining), seconds=grace, every=0.05):
        for process in remaining:
            process.signal(signal.SIGKILL)
        wait_until(lambda: not any(process.alive for process in remaining), seconds=5, every=0.05)


def started_seconds_ago(process: Process) -> float:
    """Age of a process in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.start / os.sysconf("SC_CLK_TCK")
