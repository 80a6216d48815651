"""Whether a live object already is what we want, so that nothing is written when nothing changed.

Three things must hold. Every field we want has the wanted value. Nothing was added to what decides how the object
works: selectors, pod specs, rules and data are compared whole, apart from what the API server itself fills in. And
the digest we left on the object equals that of what we want, so that a field we no longer want goes away too.
Labels, annotations and the rest of the metadata belong to others as well: there only what we want is looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from assistant_crds import naming
from assistant_operator.tenant import quantities
from assistant_operator.tenant.snapshot import Json

# Lists whose items the API server knows by a key and may return in another order. Source: x-kubernetes-list-map-keys
# of the built-in kinds we apply.
_KEYED_LISTS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_QUANTITY_FIELDS = {"requests", "limits"}
# What the API server fills in where we say nothing: pkg/apis/{core,apps}/v1/defaults.go of Kubernetes.
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "dnsPolicy": ("ClusterFirst",),
    "restartPolicy": ("Always",),
    "schedulerName": ("default-scheduler",),
    "securityContext": ({},),
    "resources": ({},),
    "serviceAccount": (naming.API,),  # the former name of serviceAccountName
    "terminationMessagePath": ("/dev/termination-log",),
    "terminationMessagePolicy": ("File",),
    "defaultMode": (0o644,),
    "scheme": ("HTTP",),
    "failureThreshold": (3,),
    "periodSeconds": (10,),
    "successThreshold": (1,),
    "timeoutSeconds": (1,),
    "initialDelaySeconds": (0,),
    "protocol": ("TCP",),
    "sessionAffinity": ("None",),
    "internalTrafficPolicy": ("Cluster",),
    "ipFamilyPolicy": ("SingleStack", "PreferDualStack", "RequireDualStack"),
}
# What the API server chooses for a Service.
_ASSIGNED = {"clusterIP", "clusterIPs", "ipFamilies"}
# Fields beside the metadata that others may write: the status, and what token controllers add to a ServiceAccount.
_OF_OTHERS = {"apiVersion", "kind", "metadata", "status"}
_OF_OTHERS_BY_KIND = {"ServiceAccount": {"secrets", "imagePullSecrets"}}
# Maps in which only what we want is looked at.
_SHARED = {"metadata", "metadata.labels", "metadata.annotations", "spec.template.metadata.annotations"}
_ABSENT: Any = object()


@dataclass(frozen=True)
class Difference:
    """One field that is not as wanted. `path` is for people; `pointer` is that of RFC 6901 into the live object."""

    path: str
    pointer: str
    wanted: Any  # _ABSENT where the field should not be there
    found: bool = True  # whether the live object has the field

    @property
    def added(self) -> bool:
        """Whether the field is one that we do not want at all."""
        return self.wanted is _ABSENT

    @property
    def operation(self) -> Json:
        """The operation of RFC 6902 that makes the field be as wanted."""
        if self.added:
            return {"op": "remove", "path": self.pointer}
        return {"op": "replace" if self.found else "add", "path": self.pointer, "value": self.wanted}

    def __str__(self) -> str:
        return f"{self.path} ({'added' if self.added else 'changed' if self.found else 'removed'})"


@dataclass(frozen=True)
class _At:
    """A place in the object."""

    path: str = ""
    pointer: str = ""
    field: str = ""

    def key(self, key: str) -> _At:
        escaped = key.replace("~", "~0").replace("/", "~1")
        return _At(f"{self.path}.{key}" if self.path else key, f"{self.pointer}/{escaped}", key)

    def item(self, index: int | str, name: str) -> _At:
        return _At(f"{self.path}[{name}]", f"{self.pointer}/{index}", "")

    def is_not(self, wanted: Any, *, found: bool = True) -> Difference:
        return Difference(self.path, self.pointer, wanted, found)


def digest(obj: Json) -> str:
    """Return a short name for the object's content, the digest annotation itself left out."""
    metadata = dict(obj["metadata"])
    annotations = {
        key: value for key, value in metadata.get("annotations", {}).items() if key != naming.ANNOTATION_APPLIED
    }
    metadata["annotations"] = annotations
    content = msgspec.json.encode({**obj, "metadata": metadata}, order="sorted")
    return hashlib.sha256(content).hexdigest()[:16]


def with_digest(obj: Json) -> Json:
    """Return the object with the digest of its content as an annotation."""
    metadata = dict(obj["metadata"])
    metadata["annotations"] = {**metadata.get("annotations", {}), naming.ANNOTATION_APPLIED: digest(obj)}
    return {**obj, "metadata": metadata}


def is_ours(live: Json) -> bool:
    """Return whether the operator made the object: it has our label or, if someone took that away, our digest."""
    metadata = live["metadata"]
    return (metadata.get("labels") or {}).get(naming.LABEL_MANAGED_BY) == naming.MANAGED_BY or bool(
        (metadata.get("annotations") or {}).get(naming.ANNOTATION_APPLIED)
    )


def is_applied(desired: Json, live: Json | None) -> bool:
    """Return whether `live` needs no write to be `desired` (which carries its digest)."""
    return live is not None and not differences(desired, live)


def differences(desired: Json, live: Json) -> list[Difference]:
    """Return what has to change in `live` for it to be `desired`; done in this order, the operations do not collide."""
    left = _OF_OTHERS | _OF_OTHERS_BY_KIND.get(desired["kind"], set())
    relevant = {key: value for key, value in live.items() if key not in left or key in desired}
    return list(_differences(desired, relevant, _At()))


def changed_by_others(desired: Json, live: Json, found: list[Difference]) -> bool:
    """Return whether the differences are not ours: the live object says that it was applied from what is wanted now."""
    annotation = (live["metadata"].get("annotations") or {}).get(naming.ANNOTATION_APPLIED)
    return bool(found) and annotation == desired["metadata"]["annotations"][naming.ANNOTATION_APPLIED]


def _differences(desired: Any, live: Any, at: _At) -> Iterator[Difference]:
    if isinstance(desired, dict):
        yield from _map(desired, live, at)
    elif isinstance(desired, list):
        yield from _list(desired, live, at)
    elif type(desired) is not type(live) or desired != live:
        yield at.is_not(desired, found=live is not None)


def _map(desired: Json, live: Any, at: _At) -> Iterator[Difference]:
    if not isinstance(live, dict):
        if desired or live is not None:  # the API server leaves out what is empty
            yield at.is_not(desired, found=live is not None)
        return
    for key, value in desired.items():
        if value is None:
            continue
        if at.field in _QUANTITY_FIELDS and _same_quantity(value, live.get(key)):
            continue
        if key not in live and value not in ({}, []):
            yield at.key(key).is_not(value, found=False)
        else:
            yield from _differences(value, live.get(key), at.key(key))
    if at.path not in _SHARED:
        for key, value in live.items():
            if desired.get(key) is None and not _is_default(key, value):
                yield at.key(key).is_not(_ABSENT)


def _list(desired: list[Any], live: Any, at: _At) -> Iterator[Difference]:
    if not isinstance(live, list):
        if desired or live is not None:
            yield at.is_not(desired, found=live is not None)
    elif at.field in _KEYED_LISTS:
        yield from _keyed(desired, live, at, _KEYED_LISTS[at.field])
    elif len(desired) != len(live):
        yield at.is_not(desired)
    else:
        for index, (wanted, found) in enumerate(zip(desired, live, strict=True)):
            yield from _differences(wanted, found, at.item(index, str(index)))


def _keyed(desired: list[Any], live: list[Any], at: _At, keys: tuple[str, ...]) -> Iterator[Difference]:
    def identity(item: Json) -> tuple[Any, ...]:
        return tuple(item.get(key) for key in keys)

    wanted, seen, superfluous = {identity(item): item for item in desired}, set(), []
    for index, item in enumerate(live):
        key = identity(item)
        place = at.item(index, str(key[0]))
        if key in seen or key not in wanted:  # of two entries of one name the last one counts
            superfluous.append(place.is_not(_ABSENT))
        else:
            seen.add(key)
            yield from _differences(wanted[key], item, place)
    yield from reversed(superfluous)  # the last one first: the others keep their places
    for key, item in wanted.items():
        if key not in seen:
            yield at.item("-", str(key[0])).is_not(item, found=False)


def _is_default(key: str, value: Any) -> bool:
    """Return whether the API server may have filled this in, or left it empty.

    An empty map is a value: as a selector it selects everything.
    """
    if value is None or value in ("", []) or (key in _ASSIGNED and value != "None"):
        return True
    return any(type(value) is type(default) and value == default for default in _DEFAULTS.get(key, ()))


def _same_quantity(desired: Any, live: Any) -> bool:
    if not (isinstance(desired, str) and isinstance(live, str)):
        return False
    try:
        return quantities.milli(desired) == quantities.milli(live)
    except ValueError:
        return desired == live
