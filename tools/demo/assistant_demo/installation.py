"""Installs the platform's charts, and the stand-in model, into a cluster; does nothing when nothing changed."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assistant_crds import naming
from assistant_crds.conditions import ConditionType
from assistant_demo.errors import DemoError
from assistant_demo.kubernetes import CommandError, Kubernetes, Object, manifests, secret
from assistant_demo.settings import MULTILINGUAL, STAND_IN, STAND_IN_NAMESPACE, STAND_IN_PORT, STAND_IN_SERVICE, Model
from assistant_demo.terminal import Step

ROOT = Path(__file__).resolve().parents[3]
CHARTS = ROOT / "charts"
MANIFESTS = ROOT / "tools" / "demo" / "manifests"
NAMESPACE = "assistant-platform"
RELEASE = "assistant-platform"
CRDS_RELEASE = "assistant-crds"
PROVIDER_KEYS = "assistant-provider-keys"
PARTS = ("operator", "gateway", "api")
GATEWAY = "assistant-gateway"
STORES = ("postgres", "redis", "weaviate")
READY_SECONDS = 300
WORDS_SHOWN = 300
# What the kubelet says of a pod that will not start by waiting.
STUCK = frozenset({"ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "RunContainerError"})


def values(images: Mapping[str, str], model: Model) -> dict[str, Any]:
    """Return the chart values that depend on this machine: images by part, and the catalogue."""
    stores = {store: {"image": images[store]} for store in STORES if store in images}
    return {
        **{part: {"image": images[part]} for part in PARTS},
        **({"embedded": stores} if stores else {}),
        "providers": {model.provider: model.catalogue_entry()},
        "networkPolicies": {"providers": {"ports": sorted({80, 443, model.port})}},
    }


def install(cluster: Kubernetes, step: Step, model: Model, *layers: Mapping[str, Any]) -> bool:
    """Install or upgrade both charts with the demo's values and further layers; returns whether there was a change."""
    cluster.apply(_namespace(NAMESPACE))
    if model.key or model.stand_in:
        key = model.key or _stand_in_key(cluster)
        cluster.apply(secret(PROVIDER_KEYS, NAMESPACE, {model.provider: key}))
    changed = _release(cluster, step, CRDS_RELEASE, CHARTS / "assistant-crds", [], [])
    files = [CHARTS / "assistant-platform" / "values-small.yaml", ROOT / "tools" / "demo" / "values.yaml"]
    if not _release(cluster, step, RELEASE, CHARTS / "assistant-platform", files, list(layers)):
        return changed
    _refresh_catalogue(cluster)
    return True


def _refresh_catalogue(cluster: Kubernetes) -> None:
    """Have the kubelet bring a changed catalogue or key to the running gateways at once, not within a minute or two.

    A changed annotation makes it look at a pod's volumes (measured: 1.3 s instead of up to 86 s).
    """
    mark = f"{naming.ANNOTATION_CONFIG}={secrets.token_hex(4)}"
    gateways = f"{naming.LABEL_NAME}={GATEWAY}"
    cluster.kubectl("annotate", "pods", "-n", NAMESPACE, "-l", gateways, mark, "--overwrite")


def install_stand_in(cluster: Kubernetes, image: str) -> None:
    """Deploy the stand-in model server with the key that the gateway sends."""
    namespace, *rest = manifests(MANIFESTS / "model-server.yaml", IMAGE=image)
    cluster.apply(namespace)
    cluster.apply(secret("model-server", STAND_IN_NAMESPACE, {"api-key": _stand_in_key(cluster)}), *rest)


def served(cluster: Kubernetes, step: Step, model: Model) -> Model:
    """Return the model as its server has it: the embeddings of meaning are not there for every processor."""
    if model != MULTILINGUAL:
        return model
    url = f"http://127.0.0.1:{STAND_IN_PORT}/healthz"
    program = f"import urllib.request as r; print(r.urlopen('{url}', timeout=20).read().decode())"
    server = ("-n", STAND_IN_NAMESPACE, f"deployment/{STAND_IN_SERVICE}")
    said = json.loads(cluster.kubectl("exec", *server, "--", "python", "-c", program))
    if said["embedding"] == model.embedding:
        return model
    step.say(f"embeddings are hashed words, which know no meaning: {said['why']}")
    return STAND_IN


def _stand_in_key(cluster: Kubernetes) -> str:
    """The stand-in's API key: made up once, kept in the cluster."""
    found = cluster.get("secret", "model-server", STAND_IN_NAMESPACE)
    if found:
        return base64.b64decode(found["data"]["api-key"]).decode()
    found = cluster.get("secret", PROVIDER_KEYS, NAMESPACE)
    if found and "demo" in found["data"]:
        return base64.b64decode(found["data"]["demo"]).decode()
    return secrets.token_urlsafe(24)


def _namespace(name: str) -> Object:
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _release(
    cluster: Kubernetes, step: Step, release: str, chart: Path, files: list[Path], layers: list[Mapping[str, Any]]
) -> bool:
    """Bring one Helm release to the given values. Its description carries a digest of all that went in."""
    digest = _digest(chart, files, layers)
    status = _status(cluster, release)
    if status.get("status") == "deployed" and status.get("description") == digest:
        return False
    _unlock(cluster, step, release, status)
    step.say(f"helm upgrade --install {release}")
    options = [option for path in files for option in ("-f", str(path))]
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merged(merged, layer)
    cluster.helm(
        *("upgrade", "--install", release, str(chart), "-n", NAMESPACE, "--description", digest),
        *options,
        *("-f", "-"),
        stdin=json.dumps(merged),
    )
    return True


def _digest(chart: Path, files: list[Path], layers: list[Mapping[str, Any]]) -> str:
    content = hashlib.sha256(json.dumps(layers, sort_keys=True).encode())
    for path in [*sorted(path for path in chart.rglob("*") if path.is_file()), *files]:
        content.update(path.name.encode() + path.read_bytes())
    return f"inputs {content.hexdigest()[:16]}"


def _status(cluster: Kubernetes, release: str) -> dict[str, str]:
    releases = json.loads(cluster.helm("list", "-n", NAMESPACE, "-f", f"^{release}$", "-o", "json"))
    if not releases:
        return {}
    info: dict[str, str] = json.loads(cluster.helm("status", release, "-n", NAMESPACE, "-o", "json"))["info"]
    return info


def _unlock(cluster: Kubernetes, step: Step, release: str, status: dict[str, str]) -> None:
    """Undo what an interrupted Helm left behind: it would refuse every further call."""
    state = status.get("status", "")
    if state == "pending-install":
        step.say(f"an earlier installation of {release} was interrupted; it is begun anew")
        cluster.helm("uninstall", release, "-n", NAMESPACE, "--no-hooks", "--wait")
    elif state.startswith("pending-"):
        step.say(f"an earlier upgrade of {release} was interrupted; it is rolled back first")
        cluster.helm("rollback", release, "-n", NAMESPACE, "--no-hooks")


def _merged(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in layer.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def wait_for_workloads(cluster: Kubernetes, step: Step, namespaces: tuple[str, ...]) -> None:
    """Wait until every Deployment and StatefulSet of some namespaces runs its present version.

    One question a turn, and none about what is finished: each costs a quarter of a second of a processor that the pods
    need to start.
    """
    left = list(namespaces)

    def reason() -> str | None:
        told: list[str] = []
        troubles: list[str] = []
        for namespace in namespaces:
            if namespace not in left:
                continue
            found = cluster.list("deployments,statefulsets,pods", namespace)
            waiting = [text for each in found if each["kind"] != "Pod" and (text := _unfinished(each))]
            if waiting:
                told += waiting
                troubles += _troubles(cluster, [each for each in found if each["kind"] == "Pod"])
            else:
                left.remove(namespace)
        return "; ".join([", ".join(told), *troubles]) or None

    step.wait(reason, seconds=READY_SECONDS, hint=f"Look at: kubectl get pods,events -n {namespaces[0]}")


def _unfinished(workload: Object) -> str | None:
    spec, status = workload["spec"], workload.get("status", {})
    wanted = spec.get("replicas", 1)
    ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
    current = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
    if current and ready >= wanted and updated >= wanted and status.get("replicas", 0) == wanted:
        return None
    return f"{workload['metadata']['name']} ({min(ready, updated) if current else 0} of {wanted})"


def _troubles(cluster: Kubernetes, pods: list[Object]) -> list[str]:
    """What the kubelet complains of; raises when waiting will not mend it."""
    told = []
    for pod in pods:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        for container in pod.get("status", {}).get("containerStatuses", []):
            state = container.get("state", {}).get("waiting", {})
            reason = state.get("reason", "")
            if reason in STUCK:
                said = state.get("message", "")
                raise DemoError(f"{name}: {reason} {said}\nLook at: kubectl describe pod -n {namespace} {name}")
            if reason == "CrashLoopBackOff":
                told.append(f"{name} ends again and again, its last words: {_last_words(cluster, namespace, name)}")
            elif reason not in {"", "ContainerCreating", "PodInitializing"}:
                told.append(f"{name}: {reason}")
    return told


def _last_words(cluster: Kubernetes, namespace: str, pod: str) -> str:
    """The last line that a container wrote before it ended."""
    try:
        lines = cluster.kubectl("logs", "-n", namespace, pod, "--previous", "--tail=1")
    except CommandError:
        return "not to be had"
    return lines.strip()[:WORDS_SHOWN]


def unready(resource: Object) -> str | None:
    """Return why an Assistant or KnowledgeBase is not ready: the first condition that is not True. None if it is."""
    name = f"{resource['kind']} {resource['metadata']['name']}"
    generation = resource["metadata"].get("generation", 0)
    conditions = {entry["type"]: entry for entry in resource.get("status", {}).get("conditions", [])}
    ready = conditions.get(ConditionType.READY)
    if ready is None or ready.get("observedGeneration", 0) < generation:
        return f"{name}: the operator has not seen it yet."
    if ready["status"] == "True":
        return None
    told = [kind for kind in ConditionType if kind not in {ConditionType.READY, ConditionType.QUOTA_EXHAUSTED}]
    first = next(
        (conditions[kind] for kind in told if conditions.get(kind, {}).get("status") == "False"),
        ready,
    )
    return f"{name}: {first['type']} is {first['status']} ({first['reason']}): {first['message']}"
