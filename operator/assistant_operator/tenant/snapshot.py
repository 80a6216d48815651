"""The objects of a tenant as they were read at one moment: plain data, so that what is computed from it stays pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from assistant_crds import naming

Json = dict[str, Any]
LONGEST_NAME = 253
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)


@dataclass(frozen=True)
class References:
    """Names of the objects that a tenant's resources refer to."""

    secrets: frozenset[str] = frozenset()
    config_maps: frozenset[str] = frozenset()
    # (name, key) of what is read of them: the rest may be large
    secret_keys: frozenset[tuple[str, str]] = field(default=frozenset(), compare=False)
    config_map_keys: frozenset[tuple[str, str]] = field(default=frozenset(), compare=False)


@dataclass(frozen=True)
class Snapshot:
    """A tenant's namespace at one moment. `uid` is None when the namespace does not exist.

    A step that writes returns the snapshot after it, because the status describes what is there then.
    """

    namespace: str
    uid: str | None = None
    terminating: bool = False
    tenant: Json | None = None
    assistants: list[Json] = field(default_factory=list)
    knowledge_bases: list[Json] = field(default_factory=list)
    owned: Mapping[tuple[str, str], Json] = field(default_factory=dict)  # by (kind, name)
    taken: frozenset[tuple[str, str]] = frozenset()  # names of ours that objects of others have
    pods: list[Json] = field(default_factory=list)
    policies: list[Json] = field(default_factory=list)  # Secrets in the routes namespace that name this namespace
    secrets: Mapping[str, Json] = field(default_factory=dict)  # those referred to that exist
    config_maps: Mapping[str, Json] = field(default_factory=dict)

    @property
    def resources(self) -> list[Json]:
        """Every Assistant and KnowledgeBase."""
        return [*self.assistants, *self.knowledge_bases]

    def with_owned(self, kind: str, name: str, obj: Json) -> Snapshot:
        """Return the snapshot after one of our objects was written."""
        return replace(self, owned={**self.owned, (kind, name): obj})

    def without_owned(self, kind: str, name: str) -> Snapshot:
        """Return the snapshot after one of our objects was deleted."""
        return replace(self, owned={key: obj for key, obj in self.owned.items() if key != (kind, name)})

    @property
    def leaving(self) -> bool:
        """Whether nothing of the tenant may stay: no resource is wanted any more, or its namespace goes."""
        return self.terminating or not any(not is_deleting(resource) for resource in self.resources)


def is_deleting(obj: Json) -> bool:
    """Return whether the object only waits for its finalizers."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def has_finalizer(obj: Json) -> bool:
    """Return whether our finalizer holds the object."""
    return naming.FINALIZER in (obj["metadata"].get("finalizers") or [])


def name_of(obj: Json) -> str:
    """Return the object's name."""
    return str(obj["metadata"]["name"])


def references(resources: Iterable[Json]) -> References:
    """Return what the specs refer to. Malformed specs are tolerated: validating them is the resolver's task."""
    secrets: set[tuple[str, str]] = set()
    config_maps: set[tuple[str, str]] = set()
    for resource in resources:
        spec = _mapping(resource.get("spec"))
        model = _mapping(spec.get("model"))
        fallbacks = model.get("fallbacks")
        for found in (model, spec.get("embedding"), *(fallbacks if isinstance(fallbacks, list) else ())):
            _add(secrets, _mapping(_mapping(found).get("endpoint")).get("apiKeySecretRef"))
        _add(config_maps, _mapping(spec.get("instructionsFrom")).get("configMapKeyRef"))
    return References(
        frozenset(name for name, _ in secrets),
        frozenset(name for name, _ in config_maps),
        frozenset(secrets),
        frozenset(config_maps),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _add(found: set[tuple[str, str]], reference: Any) -> None:
    name, key = _mapping(reference).get("name"), _mapping(reference).get("key")
    # The name becomes part of a URL path: one that no object can have is never sent to the API server.
    if isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= LONGEST_NAME:
        found.add((name, key if isinstance(key, str) else ""))
