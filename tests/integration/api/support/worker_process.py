"""The ingestion worker as a process of its own, started as a pod starts it: files, environment, nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api_process import TOKEN
from api_tenant import Tenant

from assistant_cluster.stores import free_ports
from assistant_crds.contracts import encode


class WorkerProcess:
    """A running worker; `url` is that of its metrics."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self._log = log

    def log(self) -> str:
        """What the process has logged so far."""
        return self._log.read_text()

    def memory(self) -> float:
        """Resident memory in MiB, without its parsers."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def children(self) -> list[int]:
        """Process ids of its parsers."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def kill(self) -> None:
        """SIGKILL: no chance to clean up."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)


@contextmanager
def worker_process(folder: Path, tenant: Tenant, gateway_url: str, **settings: str) -> Iterator[WorkerProcess]:
    """Start a worker of `tenant` in `folder`; stops it at the end."""
    secrets = folder / "stores"
    secrets.mkdir(parents=True)
    for name, value in tenant.mounted().items():
        (secrets / name).write_text(value)
    (folder / "token").write_text(TOKEN)
    (folder / "tenant.json").write_bytes(encode(tenant.config(gateway_url)))
    (port,) = free_ports(1)
    environment = {
        "PATH": os.environ["PATH"],
        "API_HOST": "127.0.0.1",
        "API_METRICS_PORT": str(port),
        "API_CONFIG_FILE": str(folder / "tenant.json"),
        "API_SECRETS_DIR": str(secrets),
        "API_GATEWAY_TOKEN_FILE": str(folder / "token"),
        **{f"API_{name.upper()}": value for name, value in settings.items()},
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "assistant_api.worker"], env=environment, stderr=log, stdout=log
        )
    worker = WorkerProcess(process, f"http://127.0.0.1:{port}", folder / "log")
    try:
        yield worker
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
