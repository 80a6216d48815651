"""What the demo asks of this machine: a cluster, images in it, and a folder for what it leaves behind.

The only module that calls the package `assistant_cluster`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import assistant_cluster
from assistant_cluster import ClusterInfo, images
from assistant_cluster.binaries import cache_folder, ensure
from assistant_cluster.packages import ensure_packages
from assistant_cluster.progress import Progress
from assistant_demo.errors import DemoError
from assistant_demo.installation import ROOT
from assistant_demo.kubernetes import Kubernetes
from assistant_demo.terminal import Step

KINDS = {"node": "one real node on this machine", "kind": "kind", "current": "your own cluster"}


class StepProgress(Progress):
    """Shows what the cluster's package reports as details of a step."""

    def __init__(self, step: Step) -> None:
        super().__init__(quiet=True)
        self._step = step

    def __call__(self, text: str) -> None:
        """Show one line."""
        self._step.say(text)


def folder() -> Path:
    """Where a checkout keeps its kubeconfig, addresses and logs."""
    return ROOT / ".cluster"


def shown(path: Path) -> str:
    """Return a path as the user would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


@contextmanager
def only_one() -> Iterator[None]:
    """Let one demo run at a time in a checkout; the lock goes with the process, however it ends."""
    folder().mkdir(exist_ok=True)
    descriptor = os.open(folder() / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError("Another `make demo` or `make down` runs in this checkout. Wait until it ends.") from None
        yield
    finally:
        os.close(descriptor)


def cluster_up(step: Step) -> tuple[Kubernetes, str]:
    """Bring the cluster up, or find it up; returns it and what it is."""
    info = assistant_cluster.up(progress=StepProgress(step))
    cluster = _kubernetes(info, StepProgress(step))
    version = json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    return cluster, f"{KINDS[info.mode]}, Kubernetes {version}"


def running_node() -> tuple[Kubernetes, str]:
    """Return the cluster if it runs on this machine itself, so that its pods are reached from here, and what it is."""
    info = assistant_cluster.find()
    if info is None:
        raise DemoError("No cluster runs. Run `make demo` first.")
    if info.mode != "node":
        raise DemoError(
            f"This cluster is {KINDS[info.mode]}, whose pods a Prometheus on this machine does not reach. Install the "
            "Prometheus operator in it: the chart then makes monitors, rules and dashboards (docs/sre.md)."
        )
    return _kubernetes(info, Progress(quiet=True)), KINDS[info.mode]


def packages(names: tuple[str, ...], step: Step, *, purpose: str) -> None:
    """Install what is missing of Debian's packages; says so first."""
    ensure_packages(names, StepProgress(step), purpose=purpose)


def borrowed() -> Kubernetes | None:
    """Return the cluster if it is the user's own, which must outlive us."""
    info = assistant_cluster.find()
    return _kubernetes(info, Progress(quiet=True)) if info and info.mode == "current" else None


def cluster_down(step: Step) -> str:
    """Remove the cluster; returns what was done."""
    return assistant_cluster.down(progress=StepProgress(step))


def audit_log() -> Path | None:
    """Return the API server's log of requests, where we run the API server."""
    info = assistant_cluster.find()
    return info.audit_log if info else None


def build_images(step: Step) -> tuple[dict[str, str], str]:
    """Build what changed and put it into the cluster; returns the references by part, and what was done."""
    references = images.build_and_load(progress=StepProgress(step))
    return references, f"{len(references)} there: {', '.join(references)}"


def cache() -> Path:
    """Return where downloaded and built programs are kept."""
    return cache_folder().parent


def _kubernetes(info: ClusterInfo, progress: Progress) -> Kubernetes:
    # A user's own cluster may need the plugins that the user's kubectl finds; ours is known to fit our server.
    own = shutil.which("kubectl") if info.mode == "current" else None
    kubectl = [own] if own else ensure("kubernetes", progress).command("kubectl")
    return Kubernetes(info.kubeconfig, tuple(kubectl), tuple(ensure("helm", progress).command()))
