"""Real Postgres, Redis and Weaviate as plain processes, so that integration tests need neither cluster nor container.

Postgres and Redis are started by the very scripts that the chart mounts into their pods, Weaviate with the settings the
chart gives it: users, rights and defaults are those of the embedded stores. Everything listens on the loopback
interface and lives in a temporary folder. The processes end with the context manager, and the kernel kills them when
this process is gone, however that came about.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from assistant_cluster import binaries
from assistant_cluster.errors import ClusterError
from assistant_cluster.packages import STORES as PACKAGES
from assistant_cluster.packages import ensure_packages
from assistant_cluster.progress import Progress
from assistant_cluster.scratch import scratch_folder
from assistant_cluster.server import HOST, Server, free_ports

__all__ = [
    "HOST",
    "Postgres",
    "Redis",
    "Server",
    "Weaviate",
    "free_ports",
    "install",
    "postgres",
    "redis",
    "weaviate",
    "weaviate_environment",
]

SCRIPTS = Path(__file__).parents[3] / "charts" / "assistant-platform" / "files"
ATTEMPTS = 3  # a free port can be taken by someone else between finding and using it


@dataclass(frozen=True)
class Postgres:
    """A running Postgres. `dsn` is the role `assistant_operator` (CREATEDB, CREATEROLE, no superuser)."""

    port: int
    operator_password: str
    superuser_password: str
    server: Server

    @property
    def address(self) -> str:
        """host:port."""
        return f"{HOST}:{self.port}"

    @property
    def dsn(self) -> str:
        """DSN the operator would get."""
        return f"postgresql://assistant_operator:{self.operator_password}@{self.address}/postgres"

    @property
    def superuser_dsn(self) -> str:
        """For looking at everything in a test; no part of the platform has it."""
        return f"postgresql://postgres:{self.superuser_password}@{self.address}/postgres"


@dataclass(frozen=True)
class Redis:
    """A running Redis with the chart's users; `operator_url` may make users, `gateway_url` may count."""

    port: int
    operator_password: str
    gateway_password: str
    server: Server

    @property
    def address(self) -> str:
        """host:port."""
        return f"{HOST}:{self.port}"

    @property
    def operator_url(self) -> str:
        """URL the operator would get."""
        return f"redis://operator:{self.operator_password}@{self.address}/0"

    @property
    def gateway_url(self) -> str:
        """URL the gateway would get."""
        return f"redis://gateway:{self.gateway_password}@{self.address}/0"


@dataclass(frozen=True)
class Weaviate:
    """A running Weaviate with RBAC; `api_key` belongs to the root user `operator`."""

    port: int
    grpc_port: int
    api_key: str
    server: Server

    @property
    def url(self) -> str:
        """Base URL of the REST interface."""
        return f"http://{HOST}:{self.port}"

    @property
    def grpc(self) -> str:
        """host:port of the gRPC interface."""
        return f"{HOST}:{self.grpc_port}"


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Run Postgres; as another user when called as root, because it refuses to run as root."""
    _need("PostgreSQL", "postgresql", found=_has_postgres())
    with scratch_folder("postgres") as folder:
        user = _unprivileged_user()
        operator, superuser = secrets.token_hex(16), secrets.token_hex(16)
        script = _prepare(folder, "postgres-start.sh", {"operator": operator, "superuser": superuser}, user)
        pidfile = folder / "data" / "postmaster.pid"

        def make() -> Postgres:
            (port,) = free_ports(1)
            server = Server(
                name="Postgres",
                # A crash of the machine may lose a test's data: that buys a third of the time.
                command=["sh", script, "-c", "fsync=off", "-c", f"listen_addresses={HOST}"],
                environment=_environment(
                    folder,
                    PGDATA=str(folder / "data"),
                    PGPORT=str(port),
                    SOCKET_DIR=str(folder),
                    POSTGRES_INITDB_ARGS="--no-sync",
                ),
                folder=folder,
                ready=lambda: _postgres_ready(pidfile, server.pid),
                stop_signal=signal.SIGINT,
                user=user,
            )
            return Postgres(port, operator, superuser, server)

        yield from _running(make)


@contextlib.contextmanager
def redis() -> Iterator[Redis]:
    """Run Redis."""
    _need("redis-server", "redis-server", found=shutil.which("redis-server") is not None)
    with scratch_folder("redis") as folder:
        operator, gateway = secrets.token_hex(16), secrets.token_hex(16)
        script = _prepare(folder, "redis-start.sh", {"operator": operator, "gateway": gateway}, None)

        def make() -> Redis:
            (port,) = free_ports(1)
            server = Server(
                name="Redis",
                command=["sh", script, "--bind", HOST],
                environment=_environment(folder, DATA_DIR=str(folder), REDIS_PORT=str(port)),
                folder=folder,
                ready=lambda: b"+PONG" in _ask(port, f"AUTH operator {operator}\r\nPING\r\nQUIT\r\n"),
            )
            return Redis(port, operator, gateway, server)

        yield from _running(make)


@contextlib.contextmanager
def weaviate() -> Iterator[Weaviate]:
    """Run Weaviate with RBAC on, nobody anonymous, and no module that calls out."""
    program = _weaviate_program()
    with scratch_folder("weaviate") as folder:
        key = secrets.token_hex(16)

        def make() -> Weaviate:
            http, grpc, gossip, data, raft, raft_rpc = free_ports(6)
            server = Server(
                name="Weaviate",
                command=[program, "--scheme", "http", "--host", HOST, "--port", str(http)],
                environment=_environment(
                    folder,
                    **weaviate_environment(key),
                    PERSISTENCE_DATA_PATH=str(folder / "data"),
                    GRPC_PORT=str(grpc),
                    CLUSTER_GOSSIP_BIND_PORT=str(gossip),
                    CLUSTER_DATA_BIND_PORT=str(data),
                    RAFT_PORT=str(raft),
                    RAFT_INTERNAL_RPC_PORT=str(raft_rpc),
                ),
                folder=folder,
                ready=lambda: _answers(f"http://{HOST}:{http}/v1/.well-known/ready"),
            )
            return Weaviate(http, grpc, key, server)

        yield from _running(make)


def weaviate_environment(api_key: str) -> dict[str, str]:
    """Settings of the embedded Weaviate that matter for safety and behaviour (the chart sets the same)."""
    return {
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
        "AUTHENTICATION_DB_USERS_ENABLED": "true",
        "AUTHENTICATION_APIKEY_ENABLED": "true",
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": api_key,
        "AUTHENTICATION_APIKEY_USERS": "operator",
        "AUTHORIZATION_RBAC_ENABLED": "true",
        "AUTHORIZATION_RBAC_ROOT_USERS": "operator",
        "CLUSTER_BASIC_AUTH_USERNAME": "cluster",
        "CLUSTER_BASIC_AUTH_PASSWORD": secrets.token_hex(16),
        "DEFAULT_VECTORIZER_MODULE": "none",
        "API_BASED_MODULES_DISABLED": "true",
        "DISABLE_TELEMETRY": "true",
        "GO_PROFILING_DISABLE": "true",
        "GOMEMLIMIT": "2GiB",  # the limit of the container in the chart
        "CLUSTER_HOSTNAME": "weaviate",
        # One node: it needs no address for others (it would look for a private one, and not every pod has such a one),
        # and need not wait as long as several would.
        "CLUSTER_ADVERTISE_ADDR": HOST,
        "CLUSTER_BIND_ADDR": HOST,
        "RAFT_BOOTSTRAP_EXPECT": "1",
        "RAFT_TIMEOUTS_MULTIPLIER": "1",
    }


def install(progress: Progress) -> None:
    """Get what this module needs onto the machine: two Debian packages (as root) and Weaviate's program."""
    if shutil.which("apt-get") and not (_has_postgres() and shutil.which("redis-server")):
        ensure_packages(PACKAGES, progress, purpose="the stores of integration tests")
    binaries.ensure("weaviate", progress)


Store = TypeVar("Store", Postgres, Redis, Weaviate)


def _running(make: Callable[[], Store]) -> Iterator[Store]:
    """Start a store, again on other ports if that fails, and stop it whatever happens."""
    for attempt in range(1, ATTEMPTS + 1):
        store = make()
        try:
            store.server.start()
            break
        except ClusterError:
            if attempt == ATTEMPTS:
                raise
    try:
        yield store
    finally:
        store.server.stop()


def _prepare(folder: Path, script: str, passwords: dict[str, str], user: str | None) -> str:
    """Lay out what a pod would find mounted, and give all of it to the user who runs the server."""
    shutil.copy(SCRIPTS / script, folder)
    mounted = folder / "secrets"
    mounted.mkdir(mode=0o700)
    for name, password in passwords.items():
        (mounted / f"{name}-password").write_text(password)
    if user:
        for path in (mounted, *mounted.iterdir(), folder):
            shutil.chown(path, user)
    return str(folder / script)


def _environment(folder: Path, **settings: str) -> dict[str, str]:
    """A server's whole environment: nothing of the caller's, which may hold keys or change its behaviour."""
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return {"PATH": path, "LANG": "C.UTF-8", "HOME": str(folder), "SECRETS_DIR": str(folder / "secrets"), **settings}


def _unprivileged_user() -> str | None:
    """Whom to become for a server that refuses root; nobody else when we are not root ourselves."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _has_postgres() -> bool:
    return shutil.which("initdb") is not None or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def _need(name: str, package: str, *, found: bool) -> None:
    if not found:
        raise ClusterError(
            f"{name} is missing: `python -m assistant_cluster.stores` installs what the tests' stores need,"
            f" or install the Debian package {package}."
        )


def _weaviate_program() -> str:
    # Looked up, not fetched: a test run must not begin with a build of six minutes inside somebody's fixture.
    found = binaries.find("weaviate")
    if found is None:
        raise ClusterError("weaviate-server is missing: `python -m assistant_cluster.stores` gets it.")
    return found.command()[0]


def _postgres_ready(pidfile: Path, pid: int) -> bool:
    """What `pg_ctl -w` waits for: pid and state in the lines 1 and 8 (PostgreSQL's src/include/utils/pidfile.h)."""
    try:
        lines = pidfile.read_text().splitlines()
    except FileNotFoundError:  # not written yet, or, while the server of initdb ends, no longer
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _ask(port: int, request: str) -> bytes:
    """Send one request over TCP and return what comes back before the server closes; empty when nobody answers."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(request.encode())
            return b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return b""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 - http, written above
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    try:
        install(Progress())
    except ClusterError as error:
        raise SystemExit(f"Error: {error}") from None
