"""Where one node keeps its files and which addresses it uses: everything that two nodes on a machine must not share.

Addresses come from 198.18.0.0/15 (RFC 2544, benchmarking): not private ranges that a company network may route, and
never routed on the internet. Node number 0 is the one `make cluster-up` makes; the others exist for tests.
"""

from dataclasses import dataclass
from pathlib import Path

STATE_ROOT = Path("/var/lib/assistant-platform")
CLUSTER_DOMAIN = "cluster.local"
API_PORT = 6443
POD_BRIDGE = "kbr0"
UPLINK = "uplink0"


@dataclass(frozen=True)
class Layout:
    """Names, paths and addresses of one node."""

    name: str = "assistant-platform"
    index: int = 0

    @property
    def state(self) -> Path:
        """Root-only folder with everything the node writes."""
        return STATE_ROOT / ("node" if self.index == 0 else f"node-{self.index}")

    @property
    def bin(self) -> Path:
        """The node's own copies of programs that are recognised by their path."""
        return self.state / "bin"

    @property
    def init_program(self) -> Path:
        """First process of the node; its path is how a node is found when records are lost."""
        return self.bin / "node-init"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.state / "pki"

    @property
    def config(self) -> Path:
        """Configuration files and kubeconfigs of the node's programs."""
        return self.state / "config"

    @property
    def logs(self) -> Path:
        """One log per program, and the API server's audit log."""
        return self.state / "logs"

    @property
    def volumes(self) -> Path:
        """Folders behind the PersistentVolumes."""
        return self.state / "volumes"

    @property
    def containerd_socket(self) -> Path:
        """Address of containerd, reachable from the machine itself."""
        return self.state / "containerd.sock"

    @property
    def admin_kubeconfig(self) -> Path:
        """The administrator's kubeconfig; checkouts get copies."""
        return self.config / "admin.kubeconfig"

    @property
    def link(self) -> str:
        """The machine's end of the cable to the node."""
        return f"ap-node{self.index}"

    @property
    def nft_table(self) -> str:
        """The machine's nftables table that lets pods reach the outside."""
        return f"assistant_platform_{self.index}"

    @property
    def cgroup(self) -> str:
        """Root of the pods' cgroups."""
        return "assistant-platform" if self.index == 0 else f"assistant-platform-{self.index}"

    @property
    def node_ip(self) -> str:
        """The node's address."""
        return f"198.18.255.{4 * self.index + 1}"

    @property
    def host_ip(self) -> str:
        """The machine's address as the node and its pods see it."""
        return f"198.18.255.{4 * self.index + 2}"

    @property
    def pod_range(self) -> str:
        """Addresses of pods."""
        return f"198.18.{self.index}.0/24"

    @property
    def pod_gateway(self) -> str:
        """The pods' router: the bridge's address."""
        return f"198.18.{self.index}.1"

    @property
    def service_range(self) -> str:
        """Addresses of Services."""
        return f"198.19.{64 * self.index}.0/18"

    @property
    def api_service_ip(self) -> str:
        """The API server as a Service."""
        return f"198.19.{64 * self.index}.1"

    @property
    def dns_service_ip(self) -> str:
        """Cluster DNS as a Service."""
        return f"198.19.{64 * self.index}.10"

    @property
    def api_url(self) -> str:
        """The API server's address for the machine."""
        return f"https://{self.node_ip}:{API_PORT}"
