"""Takes away what `up` made: the whole cluster if it is ours, else everything of ours in the user's cluster."""

from __future__ import annotations

import shutil

from assistant_demo import endpoint, machine, observe
from assistant_demo.installation import CRDS_RELEASE, NAMESPACE, RELEASE
from assistant_demo.kubernetes import Kubernetes
from assistant_demo.settings import STAND_IN_NAMESPACE
from assistant_demo.terminal import Step, Terminal

KINDS = ("assistants", "knowledgebases", "tenants")
GROUP = "assistantplatform.io"


def run(terminal: Terminal) -> None:
    """Leave nothing but the caches, and say where those are."""
    with machine.only_one():
        endpoint.close(machine.folder())
        observe.stop()
        with terminal.step("Cluster") as step:
            cluster = machine.borrowed()
            if cluster is None:
                step.result = machine.cluster_down(step)
            else:
                uninstall(cluster, step)
                step.result = "everything of ours is uninstalled; the cluster itself stays, as it is yours"
    shutil.rmtree(machine.folder(), ignore_errors=True)
    terminal.line(f"Kept for the next time: the Python environment .venv and the programs in {machine.cache()}.")


def uninstall(cluster: Kubernetes, step: Step) -> None:
    """Remove the platform from a cluster: resources first, while the operator can still empty the stores."""
    if cluster.get("crd", f"assistants.{GROUP}"):
        for kind in KINDS:
            step.say(f"deleting all {kind}, with their data")
            every = ("--all", *(() if kind == "tenants" else ("--all-namespaces",)))
            cluster.kubectl("delete", f"{kind}.{GROUP}", *every, "--wait=true", "--timeout=180s", seconds=200)
    for release in (RELEASE, CRDS_RELEASE):
        step.say(f"helm uninstall {release}")
        cluster.helm("uninstall", release, "-n", NAMESPACE, "--ignore-not-found", "--wait")
    for kind in KINDS:
        cluster.delete("crd", f"{kind}.{GROUP}")
    for namespace in ("demo", STAND_IN_NAMESPACE, NAMESPACE, f"{NAMESPACE}-routes"):
        step.say(f"deleting namespace {namespace}")
        cluster.delete("namespace", namespace)
