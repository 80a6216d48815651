"""Kills the operator as a crash of the machine would: no signal handler runs, nothing is finished."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from e2e_platform import PLATFORM, Platform, eventually

from assistant_crds import naming
from assistant_demo.kubernetes import CommandError

OPERATOR = "assistant-operator"


def kill(platform: Platform) -> None:
    """SIGKILL every operator process, then remove its pods by force, so that no restart back-off delays the next."""
    pods = platform.cluster.list("pods", PLATFORM, f"{naming.LABEL_NAME}={OPERATOR}")
    for pod in pods:
        for pid in _processes(pod["metadata"]["uid"]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    names = [pod["metadata"]["name"] for pod in pods]
    with contextlib.suppress(CommandError):  # a pod that went meanwhile
        platform.cluster.kubectl(
            "delete", "pod", *names, "-n", PLATFORM, "--grace-period=0", "--force", "--ignore-not-found", "--wait=false"
        )


def wait_until_leading(platform: Platform, seconds: float = 60) -> None:
    """Wait until an operator that runs now holds the lease: before, nobody does the work."""

    def leads() -> None:
        lease = platform.cluster.get("lease", OPERATOR, PLATFORM)
        holder = (lease or {}).get("spec", {}).get("holderIdentity")
        assert holder in {pod["metadata"]["name"] for pod in platform.pods(PLATFORM, OPERATOR)}, holder

    eventually(leads, seconds=seconds, every=0.2)


def _processes(pod_uid: str) -> list[int]:
    """Processes of a pod's containers, where the pod runs on this very machine and its cgroups can be seen."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            cgroup = (folder / "cgroup").read_text()
            command = (folder / "cmdline").read_bytes()
            if (pod_uid in cgroup or pod_uid.replace("-", "_") in cgroup) and b"assistant_operator" in command:
                found.append(int(folder.name))
    return found
