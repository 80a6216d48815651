"""The ConfigMaps through which a tenant's pods get their configuration while they run."""

from __future__ import annotations

from assistant_crds import naming, parts
from assistant_operator.desired.platform import metadata
from assistant_operator.tenant.snapshot import Json

ANNOTATION_PARTS = f"{naming.GROUP}/parts"  # on the first one: how many further ones there are


def build(namespace: str, files: list[bytes]) -> list[Json]:
    """Return the ConfigMaps of `parts.split`; the first one, which names the others, comes last."""
    further = [
        _config_map(name(number), namespace, parts.file_name(number), content)
        for number, content in enumerate(files[1:], 1)
    ]
    first = _config_map(naming.CONFIG_MAP, namespace, naming.CONFIG_KEY, files[0])
    if further:
        first["metadata"]["annotations"] = {ANNOTATION_PARTS: str(len(further))}
    return [*further, first]


def name(number: int) -> str:
    """Return the name of a further ConfigMap, counted from 1."""
    return f"{naming.CONFIG_MAP}-{number}"


def volume(further: int) -> Json:
    """Return the volume of a pod that reads the first file and up to so many further ones."""
    if not further:
        return {"name": "config", "configMap": {"name": naming.CONFIG_MAP}}
    sources: list[Json] = [{"configMap": {"name": naming.CONFIG_MAP}}]
    sources += [{"configMap": {"name": name(number), "optional": True}} for number in range(1, further + 1)]
    return {"name": "config", "projected": {"defaultMode": 0o644, "sources": sources}}


def known(first: Json | None, deployment: Json | None) -> int:
    """Return how many further ConfigMaps there may be, by what the first one and the pods' volumes say."""
    annotations = ((first or {}).get("metadata") or {}).get("annotations") or {}
    said = str(annotations.get(ANNOTATION_PARTS, ""))
    spec = ((((deployment or {}).get("spec") or {}).get("template") or {}).get("spec")) or {}
    mounted = max(
        (len((found.get("projected") or {}).get("sources") or []) for found in spec.get("volumes") or []), default=0
    )
    return min(parts.MOST_PARTS, max(int(said) if said.isdecimal() and len(said) < 3 else 0, mounted - 1, 0))


def _config_map(own: str, namespace: str, key: str, content: bytes) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(own, namespace, namespace, naming.API),
        "data": {key: content.decode()},
    }
