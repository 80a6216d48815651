"""A server as a child process of a test: starts when it answers, stops for certain, and can be made to hang.

It ends with this process, however that came about: the kernel sends the signal. It does so when the thread is gone that
started the server, so a thread of its own starts them all: those of an event loop's executor end with a test.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from assistant_cluster.errors import ClusterError
from assistant_cluster.progress import wait_until

HOST = "127.0.0.1"
START_SECONDS = 30
STOP_SECONDS = 10
_starter = ThreadPoolExecutor(1, thread_name_prefix="servers")
PORTS = range(10_000, 30_000)  # below NodePorts (30000) and below ip_local_port_range (32768)


@dataclass
class Server:
    """One server process: may be stopped, started again on the same data and ports, or made to hang."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    ready: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.folder / "log"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ClusterError(f"{self.name} is not running.")
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers; raise `ClusterError` with the end of its log when it does not."""
        with self.log.open("ab") as output:
            self._process = _starter.submit(
                subprocess.Popen,
                [*_wrapper(self.user), *self.command],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to the whole group: the tests decide when a server stops.
                start_new_session=True,
            ).result()
        process = self._process
        wait_until(lambda: process.poll() is not None or self.ready(), seconds=START_SECONDS, every=0.03)
        if process.poll() is not None or not self.ready():
            ended = f"ended with code {process.returncode}" if process.poll() is not None else "does not answer"
            self.stop()
            tail = "\n  ".join(self.log.read_text(errors="replace").splitlines()[-8:])
            raise ClusterError(f"{self.name} {ended} after at most {START_SECONDS} s. Its log ends with:\n  {tail}")

    def stop(self) -> None:
        """Stop in good order, or else by force; does nothing when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal_all(process.pid, signal.SIGCONT)  # a paused process hears nothing
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self.stop_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_all(process.pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it and its children at once, as a node's failure does: nothing is written that was not."""
        process, self._process = self._process, None
        if process is not None:
            _signal_all(process.pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)

    def pause(self) -> None:
        """Freeze it with its children: connections stay open and nothing answers."""
        _signal_all(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        _signal_all(self.pid, signal.SIGCONT)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody used a moment ago, each of them different.

    They are not of the range that the kernel takes ports of outgoing connections from: between here and the server's
    own `bind` such a connection, of which stores and API servers open many, would take one of them every now and then.
    """
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = secrets.choice(PORTS)  # not `random`, which Hypothesis seeds: two test processes would agree
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind((HOST, port))
                found.append(port)
        return found


def _wrapper(user: str | None) -> list[str]:
    """Command prefix: become `user`, and die with the thread that starts servers (Linux only)."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    identity = [f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"] if user else []
    return [setpriv, "--pdeathsig=KILL", *identity, "--"]


def _signal_all(pid: int, number: signal.Signals) -> None:
    """Signal a process and its children: Postgres gives each child a session, so their group does not reach them."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            _signal_all(int(child), number)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
