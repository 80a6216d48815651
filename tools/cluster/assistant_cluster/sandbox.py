"""The node as a machine of its own: one process that holds network, mount and process namespaces.

Everything of the node runs inside: its bridge, routes, firewall rules and sysctls live in the network namespace, pods'
mounts in the mount namespace, and killing the first process makes the kernel kill every other one. So taking the
node down cannot forget anything, and the node cannot collide with what else runs on the machine.
"""

import contextlib
import shutil
import signal
import subprocess
from pathlib import Path

from assistant_cluster import processes
from assistant_cluster.errors import ClusterError
from assistant_cluster.layout import Layout
from assistant_cluster.machine import Machine
from assistant_cluster.processes import Process
from assistant_cluster.progress import wait_until

# Kubernetes and its libraries write here whatever they are told; inside the node each is a folder of the state.
HARD_WIRED = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers")
# The kubelet refuses to start unless it can set these, and they belong to the machine, not to a namespace:
# inside the node each is an ordinary file.
MACHINE_WIDE_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# A short list instead of the caller's environment: model keys and tokens of the shell must not end up in daemons.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LANG": "C.UTF-8"}


class Sandbox:
    """Namespaces of one node."""

    def __init__(self, layout: Layout, machine: Machine | None = None) -> None:
        self._layout = layout
        self._machine = machine or Machine()

    def find(self) -> Process | None:
        """The node's first process, recognised by its program file in the root-only state folder."""
        found = processes.running_executable(self._layout.init_program)
        # Anything but pid 1 of its own namespace is the unfinished start of an interrupted run.
        inits = [process for process in found if _inner_pid(process.pid) == 1]
        return inits[0] if inits else None

    def create(self) -> Process:
        """Start the first process in new namespaces and prepare its mounts."""
        self._machine.make_folders(HARD_WIRED)
        pause = shutil.which("catatonit")
        if pause is None:
            raise ClusterError("catatonit is missing: install the Debian package of that name.")
        self._layout.bin.mkdir(parents=True, exist_ok=True)
        shutil.copy2(pause, self._layout.init_program)
        log = self._layout.logs / "node-init.log"
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation", "slave"]
        with log.open("ab") as output:
            parent = subprocess.Popen(
                [*unshare, "--", str(self._layout.init_program), "-P"],
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        init = wait_until(lambda: self.find() or parent.poll() is not None, seconds=10, every=0.02)
        # `unshare` only waits from now on. Without it the machine's own first process is the parent, as for a daemon.
        parent.kill()
        parent.wait()
        if not isinstance(init, Process):
            raise ClusterError(f"Could not make namespaces for the node.{log_tail(log)}")
        self._prepare_mounts()
        return init

    def _prepare_mounts(self) -> None:
        private = self._layout.state / "private"
        commands = ["mount -t tmpfs -o mode=0755,size=256m tmpfs /run"]
        for path in HARD_WIRED:
            inside = private / path.strip("/")
            inside.mkdir(parents=True, exist_ok=True)
            commands.append(f"mount --bind {inside} {path}")
        for name in MACHINE_WIDE_SYSCTLS:
            actual = Path("/proc/sys") / name
            if actual.exists():
                inside = private / "sysctl" / name
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.write_text(actual.read_text())
                commands.append(f"mount --bind {inside} {actual}")
        self.run(["sh", "-ec", "\n".join(commands)])

    def enter(self) -> list[str]:
        """Command prefix that runs a program inside the node."""
        init = self.find()
        if init is None:
            raise ClusterError("The node is not running: `make cluster-up` starts it.")
        return ["nsenter", f"--target={init.pid}", "--mount", "--net", "--pid", "--"]

    def run(self, command: list[str], *, stdin: str = "", seconds: float = 30) -> str:
        """Run a command inside the node and return what it printed; its error text becomes ours."""
        try:
            done = subprocess.run(
                [*self.enter(), *command],
                input=stdin,
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                cwd="/",
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"`{' '.join(command)}` in the node took longer than {seconds:.0f} s.") from error
        if done.returncode != 0:
            raise ClusterError(
                f"`{' '.join(command)}` in the node failed: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout

    def start(self, name: str, command: list[str]) -> Process:
        """Start a program inside the node, its output in its log; it belongs to the node's first process."""
        log = self._layout.logs / f"{name}.log"
        script = 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!'
        inner = int(self.run(["sh", "-c", script, "sh", str(log), *command]))
        init = self.find()
        inside = processes.namespace(init.pid, "pid") if init else None
        pid = processes.pid_seen_here(inner, inside) if inside else None
        process = processes.identify(pid) if pid else None
        if process is None:
            raise ClusterError(f"{name} ended at once.{log_tail(log)}")
        return process

    def destroy(self) -> None:
        """Kill the node's first process, and with it, by the kernel, all others of the node."""
        while init := self.find():
            inside = processes.namespace(init.pid, "pid")
            init.signal(signal.SIGKILL)
            if not _wait_for_end(init):
                raise ClusterError(f"Process {init.pid} of the node does not end although it was killed.")
            if inside:
                _wait_until_empty(inside)
        for leftover in processes.running_executable(self._layout.init_program):
            leftover.signal(signal.SIGKILL)


def log_tail(log: Path, lines: int = 5) -> str:
    """The last lines of a program's log, ready to be appended to an error."""
    try:
        last = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return f" Its log {log} ends with:\n  " + "\n  ".join(line[:300] for line in last)


def _wait_for_end(process: Process) -> bool:
    return bool(wait_until(lambda: not process.alive, seconds=60, every=0.05))


def _wait_until_empty(pid_namespace: str) -> None:
    wait_until(lambda: not processes.in_pid_namespace(pid_namespace), seconds=10, every=0.05)


def _inner_pid(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        for line in (processes.PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return None
