"""Which resources a change of a tenant's documents concerns, so that no other waits until it has arrived. Pure.

Pods and gateway name the generation of the whole document they work with. A resource is up to date with them as soon
as its own part of that generation is the wanted one, independent of other changes since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from assistant_crds.contracts import TenantConfig, TenantPolicy, digest

# The part of a document that belongs to no single resource: it is the Tenant's.
SHARED = ""
# Of one document. Pods and gateway are a generation or two behind, for seconds.
REMEMBERED = 8
Parts = Mapping[str, str]


def assistant(name: str) -> str:
    """Return the name of an Assistant's part."""
    return f"Assistant/{name}"


def knowledge_base(name: str) -> str:
    """Return the name of a KnowledgeBase's part."""
    return f"KnowledgeBase/{name}"


def config_parts(config: TenantConfig) -> Parts:
    """Return a digest of each resource's part of what the pods serve. All of them depend on what they share."""
    common = msgspec.structs.replace(config, generation="", assistants=[], knowledge_bases=[], unavailable=[], parts=[])
    shared = digest(common)
    parts = {SHARED: shared}
    parts |= {assistant(item.name): digest([shared, item]) for item in config.assistants}
    return parts | {knowledge_base(item.name): digest([shared, item]) for item in config.knowledge_bases}


def policy_parts(policy: TenantPolicy) -> Parts:
    """Return a digest of each resource's part of what the gateway enforces; what they share is the Tenant's alone."""
    parts = {SHARED: digest(msgspec.structs.replace(policy, generation="", assistants={}, knowledge_bases={}))}
    parts |= {assistant(name): digest(item) for name, item in policy.assistants.items()}
    return parts | {knowledge_base(name): digest(item) for name, item in policy.knowledge_bases.items()}


@dataclass
class Generations:
    """The parts of a document's last generations. Losing them costs a resource a moment of not being up to date."""

    _parts: dict[str, Parts] = field(default_factory=dict)

    def put(self, generation: str, parts: Callable[[], Parts]) -> None:
        """Remember a generation as the newest; its parts are only computed when it is new."""
        known = self._parts.pop(generation, None)
        self._parts[generation] = parts() if known is None else known
        while len(self._parts) > REMEMBERED:
            del self._parts[next(iter(self._parts))]

    def agree(self, part: str, one: str, other: str) -> bool:
        """Return whether a part is the same in two generations; unknown ones agree with themselves alone."""
        if one == other:
            return True
        found = self._parts.get(one, {}).get(part)
        return found is not None and found == self._parts.get(other, {}).get(part)
