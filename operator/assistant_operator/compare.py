"""Whether a live object already is what we want, so that nothing is written when nothing changed.

Two things must hold. Every field we want has the wanted value; the API server and others may have added more.
And the digest we left on the object equals that of what we want, so that a field we no longer want goes away too.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from assistant_crds import naming
from assistant_operator import quantities
from assistant_operator.snapshot import Json

# Lists that server-side apply merges by key; others may add items to them, and may keep them. All other lists are
# replaced as a whole. Source: x-kubernetes-list-map-keys of the built-in kinds we apply.
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


def is_applied(desired: Json, live: Json | None) -> bool:
    """Return whether `live` needs no write to be `desired` (which carries its digest)."""
    return live is not None and _covers(desired, live, "")


def _covers(desired: Any, live: Any, field: str) -> bool:
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return not desired and live is None
        inner = _covers_quantity if field in _QUANTITY_FIELDS else _covers
        # The API server leaves out what is empty.
        return all(inner(value, live.get(key), key) for key, value in desired.items() if value is not None)
    if isinstance(desired, list):
        if not isinstance(live, list):
            return not desired and live is None
        if field in _KEYED_LISTS:
            return _covers_keyed(desired, live, _KEYED_LISTS[field])
        return len(desired) == len(live) and all(
            _covers(wanted, found, "") for wanted, found in zip(desired, live, strict=True)
        )
    return type(desired) is type(live) and bool(desired == live)


def _covers_keyed(desired: list[Any], live: list[Any], keys: tuple[str, ...]) -> bool:
    found = {tuple(item.get(key) for key in keys): item for item in live}
    return all(
        (identity := tuple(item.get(key) for key in keys)) in found and _covers(item, found[identity], "")
        for item in desired
    )


def _covers_quantity(desired: Any, live: Any, field: str) -> bool:
    if isinstance(desired, str) and isinstance(live, str):
        try:
            return quantities.parse(desired) == quantities.parse(live)
        except ValueError:
            return desired == live
    return _covers(desired, live, field)
