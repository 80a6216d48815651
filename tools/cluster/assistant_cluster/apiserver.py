"""A real Kubernetes API server without a node, for integration tests: etcd and kube-apiserver on free loopback ports.

Needs no root. Certificates and command lines are the node's own (`controlplane.py`), so RBAC, admission, CEL rules and
token signing behave as they do there; what is missing is everything that needs a kubelet or a controller.
"""

import contextlib
import ctypes
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from assistant_cluster import kubeconfig
from assistant_cluster.binaries import Programs, ensure
from assistant_cluster.client import Client
from assistant_cluster.controlplane import ISSUER, ControlPlane
from assistant_cluster.errors import ClusterError
from assistant_cluster.progress import Progress, wait_until
from assistant_cluster.sandbox import log_tail
from assistant_cluster.scratch import scratch_folder
from assistant_cluster.server import free_ports

LOOPBACK = "127.0.0.1"
START_SECONDS = 60
ATTEMPTS = 3
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ApiServer:
    """A running API server."""

    url: str
    kubeconfig: Path
    audit_log: Path
    kubectl: list[str]
    folder: Path
    issuer: str = ISSUER

    def run_kubectl(self, *arguments: str, stdin: str = "", seconds: float = 30) -> str:
        """Run kubectl as administrator and return what it printed."""
        done = subprocess.run(
            [*self.kubectl, f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'cache'}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def apiserver(progress: Progress | None = None) -> Iterator[ApiServer]:
    """Start etcd and an API server in a temporary folder; both end, and the folder goes, on the way out."""
    progress = progress or Progress(quiet=True)
    # What KUBEBUILDER_ASSETS holds where envtest was set up is enough: no kubelet, no controllers.
    kubernetes = ensure("kubernetes", progress, programs=("kube-apiserver", "kubectl"))
    etcd = ensure("etcd", progress)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder("apiserver"))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                server = _start(stack, folder / str(attempt), kubernetes, etcd)
                break
            except _PortTakenError:
                if attempt == ATTEMPTS:
                    raise
        yield server


class _PortTakenError(ClusterError):
    """Somebody took a port between our finding it free and the server's using it."""


def _start(stack: contextlib.ExitStack, folder: Path, kubernetes: Programs, etcd: Programs) -> ApiServer:
    folder.mkdir(mode=0o700)
    api_port, etcd_port, peer_port = free_ports(3)
    plane = ControlPlane(
        folder=folder,
        pki=folder / "pki",
        logs=folder,
        address=LOOPBACK,
        api_port=api_port,
        etcd_port=etcd_port,
        etcd_peer_port=peer_port,
        service_range="198.19.0.0/16",
        api_service_ip="198.19.0.1",
        advertised="198.18.255.1",
    )
    programs = {
        "etcd": plane.etcd(etcd.command()),
        "kube-apiserver": plane.api_server(kubernetes.command("kube-apiserver"), bind_address=LOOPBACK),
    }
    running = {name: _launch(stack, command, folder / f"{name}.log") for name, command in programs.items()}
    admin = kubeconfig.write(
        folder / "kubeconfig",
        server=plane.url,
        authority=plane.authority.files.certificate,
        client=plane.authority.client("admin", "system:masters"),
        name="assistant-platform-test",
    )
    client = Client(admin)

    def ended() -> str | None:
        return next((name for name, process in running.items() if process.poll() is not None), None)

    wait_until(lambda: client.ready() or ended(), seconds=START_SECONDS, every=0.05)
    if (name := ended()) or not client.ready():
        log = folder / f"{name or 'kube-apiserver'}.log"
        problem = f"{name} ended" if name else f"The API server was not ready within {START_SECONDS} s"
        kind = _PortTakenError if "address already in use" in log.read_text(errors="replace") else ClusterError
        raise kind(f"{problem}.{log_tail(log)}")
    return ApiServer(
        url=plane.url,
        kubeconfig=admin,
        audit_log=folder / "audit.log",
        kubectl=kubernetes.command("kubectl"),
        folder=folder,
    )


def _launch(stack: contextlib.ExitStack, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # A test run that is killed takes its servers along: the kernel sends the signal.
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call into the kernel, no locks
        )
    stack.callback(_stop, process)
    return process


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # Nothing here is worth a graceful end: the data go with the folder.
    if process.poll() is None:
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
