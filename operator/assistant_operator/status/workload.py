"""What Deployments and pods say about whether a tenant is served, in words a person can act on.

Pure. A pod that cannot start is reported even while older pods still serve: someone has to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from assistant_crds import naming
from assistant_crds.conditions import Reason
from assistant_operator.tenant.condition import ConditionResult, false, true
from assistant_operator.tenant.snapshot import Json, is_deleting, name_of

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_START = {
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "PostStartHookError",
}


def availability(owned: Mapping[tuple[str, str], Json], pods: list[Json], names: Iterable[str]) -> ConditionResult:
    """Return whether the Deployments called `names` are available."""
    for name in names:
        deployment = owned.get(("Deployment", name))
        if deployment is None:
            return false(Reason.PROGRESSING, f"Deployment {name} is being created.")
        result = _pods_result([pod for pod in pods if pod["metadata"]["labels"].get(naming.LABEL_NAME) == name])
        if result is None:
            result = _deployment_result(deployment)
        if result is not None:
            return result
    return true(Reason.AVAILABLE, "The pods are available.")


def replicas(owned: Mapping[tuple[str, str], Json]) -> tuple[int, int]:
    """Return how many API pods are ready, and how many are wanted."""
    deployment = owned.get(("Deployment", naming.API)) or {}
    ready = (deployment.get("status") or {}).get("readyReplicas") or 0
    return int(ready), int((deployment.get("spec") or {}).get("replicas") or 0)


def running(pods: list[Json], name: str) -> list[Json]:
    """Return the component's pods that run, have an address and are not on their way out, in order of their names."""
    return [
        pod
        for pod in sorted(pods, key=name_of)
        if pod["metadata"]["labels"].get(naming.LABEL_NAME) == name
        and not is_deleting(pod)
        and (pod.get("status") or {}).get("phase") == "Running"
        and pod["status"].get("podIP")
    ]


def is_ready(pod: Json) -> bool:
    """Return whether the kubelet found the pod ready."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in (pod.get("status") or {}).get("conditions") or []
    )


def _deployment_result(deployment: Json) -> ConditionResult | None:
    name, status = name_of(deployment), deployment.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = f"Deployment {name} cannot create pods: {condition.get('message', '')}"
            return false(Reason.APPLY_FAILED, message)
    wanted = int(deployment["spec"].get("replicas") or 0)
    available = int(status.get("availableReplicas") or 0)
    if available < wanted:
        return false(Reason.PROGRESSING, f"Deployment {name} has {available} of {wanted} pods available.")
    return None


def _pods_result(pods: list[Json]) -> ConditionResult | None:
    for pod in sorted(pods, key=name_of):
        if is_deleting(pod):
            continue
        status = pod.get("status") or {}
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
                message = f"Pod {name_of(pod)} cannot be scheduled: {condition.get('message', 'no node fits')}"
                return false(Reason.UNSCHEDULABLE, message)
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            result = _container_result(name_of(pod), container)
            if result is not None:
                return result
    return None


def _container_result(pod: str, container: Mapping[str, Any]) -> ConditionResult | None:
    state = container.get("state") or {}
    waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
    reason = waiting.get("reason", "")
    if reason in _PULL:
        message = (
            f"Pod {pod} cannot pull the image {container.get('image', '')}: check the platform's image settings and "
            "the node's access to the registry."
        )
        return false(Reason.IMAGE_PULL_FAILED, message)
    ended = terminated or (container.get("lastState") or {}).get("terminated") or {}
    crashed = bool(ended.get("exitCode")) and not container.get("ready")
    if reason in _START or crashed:
        # Neither the back-off time nor which of its states the container is in: both change every few seconds.
        detail = waiting.get("message", "") if reason != "CrashLoopBackOff" else ""
        if not detail:
            detail = f"{ended.get('reason', 'ended')}, exit code {ended.get('exitCode', 'unknown')}"
        message = (
            f"Container {container['name']} of pod {pod} does not stay up ({detail}). "
            f"Look at its log: kubectl logs {pod} -c {container['name']} --previous"
        )
        return false(Reason.CONTAINER_FAILING, message)
    return None
