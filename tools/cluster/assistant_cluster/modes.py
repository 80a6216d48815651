"""Which cluster to use. `auto` never takes a cluster that the user did not ask for."""

import os
import shutil

from assistant_cluster import kind
from assistant_cluster.checkout import Checkout
from assistant_cluster.errors import ClusterError

MODES = ("auto", "node", "kind", "current")
CHOICES = """\
  CLUSTER=node     one real Kubernetes node on this machine (root on Debian or Ubuntu)
  CLUSTER=kind     a kind cluster (needs Docker or Podman)
  CLUSTER=current  the cluster of your current kube context (CLUSTER_CONTEXT=name for another one)"""


def choose(wanted: str | None, checkout: Checkout) -> tuple[str, str]:
    """The mode and, for people, the reason for it. `wanted` None means the environment's CLUSTER."""
    mode = wanted or os.environ.get("CLUSTER") or "auto"
    if mode not in MODES:
        raise ClusterError(f"CLUSTER={mode} is not one of the choices:\n{CHOICES}")
    if mode != "auto":
        return mode, "as you asked"
    if checkout.mode:
        return checkout.mode, "as before in this checkout"
    if engine := kind.engine():
        return "kind", f"{engine} answers"
    if can_run_node():
        return "node", "no Docker or Podman answers, and this is root on Debian or Ubuntu"
    raise ClusterError(
        "There is no cluster to be had without your choice: neither Docker nor Podman answers, and a node of our own "
        f"needs root on Debian or Ubuntu.\n{CHOICES}"
    )


def can_run_node() -> bool:
    """Whether this machine and user can run the node."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None
