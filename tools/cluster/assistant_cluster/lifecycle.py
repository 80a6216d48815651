"""`up`, `down` and `find` for every kind of cluster: what the Makefile, the demo and the tests call."""

import os
from dataclasses import dataclass
from pathlib import Path

from assistant_cluster import current, kubeconfig, modes
from assistant_cluster.checkout import CONTEXT, Checkout
from assistant_cluster.errors import ClusterError
from assistant_cluster.kind import KindCluster
from assistant_cluster.layout import STATE_ROOT, Layout
from assistant_cluster.node import NodeCluster
from assistant_cluster.progress import Progress


@dataclass(frozen=True)
class ClusterInfo:
    """A cluster that is up."""

    mode: str
    kubeconfig: Path
    server: str
    # The API server's log of every write, where we run the API server ourselves.
    audit_log: Path | None = None
    # This machine as pods see it.
    host_address: str | None = None
    context: str = CONTEXT

    @property
    def reaches_services(self) -> bool:
        """Whether programs on this machine can connect to ClusterIPs; elsewhere they need `kubectl port-forward`."""
        return self.mode == "node"


def up(mode: str | None = None, *, checkout: Checkout | None = None, progress: Progress | None = None) -> ClusterInfo:
    """Bring a cluster up, or find it up, and give this checkout its kubeconfig."""
    checkout, progress = checkout or Checkout(), progress or Progress()
    chosen, reason = modes.choose(mode, checkout)
    if chosen != checkout.mode:
        progress(f"Chosen: {chosen} ({reason})")
    if chosen == "node":
        node = NodeCluster(progress=progress)
        node.up()
        content = node.layout.admin_kubeconfig.read_text()
    elif chosen == "kind":
        content = KindCluster(progress).up()
    elif checkout.mode == "current" and not _asked_for_current(mode):
        content = checkout.kubeconfig.read_text()
        progress(f"Using the cluster that you named before: {kubeconfig.server_of(checkout.kubeconfig)}")
    else:
        content = current.read(progress)
    checkout.remember(chosen, content)
    return _info(chosen, checkout)


def find(checkout: Checkout | None = None) -> ClusterInfo | None:
    """This checkout's cluster as it was last brought up; says nothing about its health."""
    checkout = checkout or Checkout()
    if checkout.mode is None or not checkout.kubeconfig.exists():
        return None
    return _info(checkout.mode, checkout)


def down(mode: str | None = None, *, checkout: Checkout | None = None, progress: Progress | None = None) -> str:
    """Remove the cluster (a user's own one is only forgotten); fine when there is none. Returns what was done."""
    checkout, progress = checkout or Checkout(), progress or Progress()
    chosen = _mode_to_remove(mode, checkout)
    if chosen == "node":
        NodeCluster(progress=progress).down()
        done = "The node is gone, with everything it made on this machine."
    elif chosen == "kind":
        KindCluster(progress).down()
        done = "The kind cluster is deleted."
    elif chosen == "current":
        done = "Your own cluster was left as it is; this checkout no longer uses it."
    else:
        done = "There was no cluster."
    checkout.forget()
    return done


def _mode_to_remove(mode: str | None, checkout: Checkout) -> str | None:
    wanted = mode or os.environ.get("CLUSTER") or "auto"
    if wanted not in modes.MODES:
        raise ClusterError(f"CLUSTER={wanted} is not one of the choices:\n{modes.CHOICES}")
    if wanted != "auto":
        return wanted
    # Any checkout, also one that never started it, may take the machine's node down.
    return checkout.mode or ("node" if STATE_ROOT.exists() else None)


def _asked_for_current(mode: str | None) -> bool:
    return "current" in {mode, os.environ.get("CLUSTER")}


def _info(mode: str, checkout: Checkout) -> ClusterInfo:
    layout = Layout()
    own = mode == "node"
    return ClusterInfo(
        mode=mode,
        kubeconfig=checkout.kubeconfig,
        server=kubeconfig.server_of(checkout.kubeconfig) or "",
        audit_log=layout.logs / "audit.log" if own else None,
        host_address=layout.host_ip if own else None,
    )
