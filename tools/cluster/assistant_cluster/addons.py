"""What a bare node needs to be a cluster: cluster DNS, rights for kube-router, a storage class with volumes."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from assistant_cluster import volumes
from assistant_cluster.client import Client
from assistant_cluster.errors import ClusterError
from assistant_cluster.layout import CLUSTER_DOMAIN, Layout
from assistant_cluster.progress import wait_until

MANIFESTS = Path(__file__).parent / "manifests"
SECONDS = 60


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the administrator's rights."""

    program: list[str]
    kubeconfig: Path

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return what it printed."""
        cache = self.kubeconfig.parent / "kubectl-cache"
        command = [*self.program, f"--kubeconfig={self.kubeconfig}", f"--cache-dir={cache}", *arguments]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"kubectl {' '.join(arguments)} took longer than {SECONDS} s.") from error
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def apply(self, manifests: str) -> None:
        """Server-side apply: the same call makes, repairs and leaves alone."""
        arguments = ("--server-side", "--force-conflicts", "--field-manager=assistant-cluster", "--filename=-")
        self.run("apply", *arguments, stdin=manifests)


def policy_rights() -> str:
    """Rights of kube-router."""
    return (MANIFESTS / "kube-router.yaml").read_text()


def cluster_dns(layout: Layout, image: str, servers: list[str]) -> str:
    """CoreDNS with these name servers behind it; without any, names outside the cluster do not exist."""
    behind = (
        ["forward . " + " ".join(servers) + " {", "    max_fails 2", "    failfast_all_unhealthy_upstreams", "}"]
        if servers
        else ["template ANY ANY {", "    rcode NXDOMAIN", "}"]
    )
    template = Template((MANIFESTS / "coredns.yaml").read_text())
    return template.substitute(
        domain=CLUSTER_DOMAIN,
        host_ip=layout.host_ip,
        dns_ip=layout.dns_service_ip,
        image=image,
        upstream="\n".join(f"        {line}" for line in behind),
    )


def ensure_volumes(layout: Layout, kubectl: Kubectl, client: Client) -> None:
    """Storage class and volumes; volumes that were given back are offered again, empty."""
    existing = _existing_volumes(client)
    freed = volumes.released(list(existing.values()))
    if freed:
        kubectl.run("delete", "persistentvolume", "--wait=true", *freed)
    wanted = [name for name in volumes.names() if name not in existing or name in freed]
    for name in wanted:
        volumes.wipe(layout, name)
    if wanted:
        storage = (MANIFESTS / "storage.yaml").read_text()
        kubectl.apply(storage + "\n---\n" + volumes.manifests(layout, wanted))


def _existing_volumes(client: Client) -> dict[str, dict[str, Any]]:
    found = wait_until(lambda: client.read("/api/v1/persistentvolumes"), seconds=10)
    if found is None:
        raise ClusterError("The API server does not answer.")
    return {volume["metadata"]["name"]: volume for volume in found["items"]}
