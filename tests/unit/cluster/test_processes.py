"""Processes, and that only the right ones are ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistant_cluster import processes
from assistant_cluster.processes import Process

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def identified(pid: int) -> Process:
    process = processes.identify(pid)
    assert process is not None
    return process


def test_a_pid_that_was_used_again_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    """A record from before must not kill whoever has that pid now."""
    recorded = Process(sleeper.pid, identified(sleeper.pid).start - 1)
    assert not recorded.alive
    recorded.signal(signal.SIGKILL)
    processes.stop([recorded])
    assert sleeper.poll() is None


def test_a_dead_process_is_not_alive_even_as_a_zombie() -> None:
    """Its parent may not have asked for its exit code yet."""
    child = subprocess.Popen(["true"])
    process = Process(child.pid, identified(child.pid).start) if processes.identify(child.pid) else None
    deadline = time.monotonic() + 5
    while processes.identify(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.identify(child.pid) is None
    assert process is None or not process.alive
    child.wait()


def test_a_process_that_ignores_the_request_is_killed() -> None:
    """SIGTERM first, SIGKILL after the grace period."""
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    processes.stop([identified(child.pid)], grace=0.2)
    assert child.wait(timeout=5) == -signal.SIGKILL
    child.stdout.close()


def test_a_running_program_is_found_by_its_file_also_after_that_was_removed(tmp_path: Path) -> None:
    """A node is found even if its state folder is half deleted."""
    program = tmp_path / "node-init"
    program.write_bytes(Path("/bin/sleep").resolve().read_bytes())
    program.chmod(0o755)
    child = subprocess.Popen([program, "60"])
    try:
        assert [process.pid for process in processes.running_executable(program)] == [child.pid]
        program.unlink()
        assert [process.pid for process in processes.running_executable(program)] == [child.pid]
    finally:
        child.kill()
        child.wait()
    assert processes.running_executable(program) == []


def test_descendants_are_recognised(sleeper: subprocess.Popen[bytes]) -> None:
    """Children belong to their ancestors, and not the other way round."""
    assert processes.descends(sleeper.pid, os.getpid())
    assert processes.descends(os.getpid(), os.getpid())
    assert not processes.descends(os.getpid(), sleeper.pid)


def test_what_is_asked_of_a_process_that_is_gone_has_an_answer() -> None:
    """Processes end between two looks at them."""
    gone = 2**22 + 1
    assert processes.identify(gone) is None
    assert processes.namespace(gone, "net") is None
    assert processes.resident_bytes(gone) == 0
    assert not processes.descends(gone, os.getpid())
    assert processes.resident_bytes(os.getpid()) > 2**20
    assert processes.started_seconds_ago(identified(os.getpid())) > 0
