"""The stores and the API server that integration tests share: started when first asked for, one of each per session.

A test that stops, freezes or fills a store takes one of its own from `assistant_cluster.stores`.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from assistant_cluster import stores
from assistant_cluster.apiserver import ApiServer, apiserver

CRDS = Path(__file__).parents[2] / "crds"


@dataclass(frozen=True)
class Kube:
    """A real API server without kubelet and controllers, with the platform's CRDs."""

    server: ApiServer

    @property
    def url(self) -> str:
        """Address of the API server."""
        return self.server.url

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of an administrator."""
        return self.server.kubeconfig

    @property
    def audit_log(self) -> Path:
        """One JSON line per request."""
        return self.server.audit_log

    @property
    def issuer(self) -> str:
        """Issuer of ServiceAccount tokens."""
        return self.server.issuer

    def kubectl(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002
        """Run kubectl as administrator; the caller looks at the return code."""
        command = [*self.server.kubectl, f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.server.folder}/cache"]
        return subprocess.run(
            [*command, *arguments], input=input, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[stores.Postgres]:
    """Postgres; `.dsn` logs in as the operator's role, which is no superuser."""
    with stores.postgres() as store:
        yield store


@pytest.fixture(scope="session")
def redis_store() -> Iterator[stores.Redis]:
    """Redis; `.operator_url` may make users, `.gateway_url` may count."""
    with stores.redis() as store:
        yield store


@pytest.fixture(scope="session")
def weaviate_store() -> Iterator[stores.Weaviate]:
    """Weaviate; `.api_key` is the root user's."""
    with stores.weaviate() as store:
        yield store


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """The API server with the CRDs of this checkout; no controller runs, so nothing makes ServiceAccounts or pods."""
    with apiserver() as server:
        kube = Kube(server)
        files = [argument for path in sorted(CRDS.glob("*.yaml")) for argument in ("--filename", str(path))]
        for command in (["apply", "--server-side", *files], ["wait", "--for=condition=Established", "crd", "--all"]):
            done = kube.kubectl(*command)
            assert done.returncode == 0, done.stderr
        yield kube
