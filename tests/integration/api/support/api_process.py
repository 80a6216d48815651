"""The tenant API as a process of its own, started as a pod starts it: files, environment, nothing else."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from assistant_cluster.stores import free_ports
from assistant_crds import naming
from assistant_crds.contracts import (
    ApiKeyConfig,
    AssistantConfig,
    KnowledgeBaseConfig,
    TenantConfig,
    TenantIdentity,
    encode,
    seal,
)

KEY = "ak_" + "k" * 43
TOKEN = "test-token"
START_SECONDS = 60.0  # of a machine that does much else; bare it takes one


def assistant(name: str, *knowledge_bases: str, instructions: str = "Be brief.") -> AssistantConfig:
    """An assistant that knows these knowledge bases."""
    return AssistantConfig(
        name=name,
        generation=1,
        display_name=name.title(),
        description="",
        instructions=instructions,
        knowledge_bases=list(knowledge_bases),
        max_chunks=4,
        min_score=0.0,
        created=1_700_000_000,
    )


def document(
    gateway_url: str,
    assistants: list[AssistantConfig],
    knowledge_bases: list[KnowledgeBaseConfig] | None = None,
    key: str = "t_0123456789",
) -> TenantConfig:
    """What the operator would write for this tenant."""
    return seal(
        TenantConfig(
            tenant=TenantIdentity(namespace="acme", uid="uid", key=key),
            generation="",
            gateway_url=gateway_url,
            collection=naming.VECTOR_COLLECTION,
            api_keys=[ApiKeyConfig(name="first", sha256=hashlib.sha256(KEY.encode()).hexdigest())],
            assistants=assistants,
            knowledge_bases=knowledge_bases or [],
        )
    )


class ApiProcess:
    """A running API; `url` has no path."""

    def __init__(self, folder: Path, port: int, metrics_port: int, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.metrics_url = f"http://127.0.0.1:{metrics_port}"
        self.process = process

    def configure(self, config: TenantConfig) -> None:
        """Replace the mounted configuration as the kubelet does: by a rename."""
        fresh = self.folder / "fresh.json"
        fresh.write_bytes(encode(config))
        fresh.rename(self.folder / "tenant.json")

    def log(self) -> str:
        """What the process has logged so far."""
        return (self.folder / "log").read_text()

    def ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self) -> float:
        """Wait until ready; return the seconds it took."""
        started = time.monotonic()
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise RuntimeError(f"the API did not become ready:\n{self.log()}")
            time.sleep(0.01)
        return time.monotonic() - started

    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu(self) -> float:
        """Processor time used so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def api_process(
    folder: Path,
    config: TenantConfig | None,
    stores: Mapping[str, str] | None = None,
    module: str = "assistant_api",
    **settings: str,
) -> Iterator[ApiProcess]:
    """Start the API in `folder` (not there yet) with `stores` as its mounted Secret; stops it at the end.

    `stores` may leave out what the test does not need: such a store does not answer.
    """
    secrets = folder / "stores"
    secrets.mkdir(parents=True)
    absent = {
        "postgres_dsn": "postgresql://nobody:pw@127.0.0.1:1/none",
        "redis_url": "redis://nobody:pw@127.0.0.1:1",
        "weaviate_url": "http://127.0.0.1:1",
        "weaviate_grpc": "127.0.0.1:1",
        "weaviate_api_key": "none",
    }
    for name, value in {**absent, **(stores or {})}.items():
        (secrets / name).write_text(value)
    (folder / "token").write_text(TOKEN)
    port, metrics_port = free_ports(2)
    environment = {
        "PATH": os.environ["PATH"],
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "API_METRICS_PORT": str(metrics_port),
        "API_CONFIG_FILE": str(folder / "tenant.json"),
        "API_SECRETS_DIR": str(secrets),
        "API_GATEWAY_TOKEN_FILE": str(folder / "token"),
        "API_DRAIN_SECONDS": "0.2",
        **{f"API_{name.upper()}": value for name, value in settings.items()},
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", module], env=environment, stderr=log, stdout=log)
    api = ApiProcess(folder, port, metrics_port, process)
    try:
        if config is not None:
            api.configure(config)
        yield api
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
