"""What fits into the documents of one tenant: the configuration of its pods, and the gateway's policy.

Resources keep their place in the order of creation. One that does not fit is left out by itself, and its condition
says so. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from assistant_crds import parts
from assistant_crds.conditions import Reason
from assistant_crds.contracts import AssistantConfig, AssistantPolicy, EmbeddingPolicy, KnowledgeBaseConfig, encode
from assistant_operator.tenant.condition import ConditionResult, false
from assistant_operator.tenant.snapshot import Json, name_of

# Of the policy, which is one Secret: the API server takes 1,048,576 bytes.
MOST_POLICY = 1_000_000


class _Item(Protocol):
    @property
    def raw(self) -> Json: ...
    @property
    def config(self) -> AssistantConfig | KnowledgeBaseConfig | None: ...
    @property
    def policy(self) -> AssistantPolicy | EmbeddingPolicy | None: ...


Item = TypeVar("Item", bound=_Item)


class Capacity:
    """What is left for further resources, in bytes."""

    def __init__(self) -> None:
        self._config = parts.MOST_IN_ALL
        # Apart from routes the policy holds the patterns of allowed models, of which there are 100 of 300 characters.
        self._policy = MOST_POLICY - 100_000

    def fit(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in their order, those that do not fit without what is served of them."""
        fitted = {name_of(item.raw): self._fit(item) for item in sorted(items, key=_age)}
        return [fitted[name_of(item.raw)] for item in items]

    def _fit(self, item: Item) -> Item:
        if item.config is None or item.policy is None:
            return item
        name = name_of(item.raw)
        config, policy = parts.size(item.config), len(encode(item.policy)) + len(encode(name)) + 2
        if config > self._config or policy > self._policy:
            return replace(item, accepted=_refused(item.raw), config=None, policy=None)  # type: ignore[type-var]
        self._config -= config
        self._policy -= policy
        return item


def _refused(raw: Json) -> ConditionResult:
    message = (
        f"{raw['kind']} {name_of(raw)} does not fit beside the others of its namespace: all instructions together may "
        f"have {parts.MOST_IN_ALL // 1_000_000} MB, all models with their endpoints and keys {MOST_POLICY // 1000} kB. "
        "Shorten some, or move some to another namespace."
    )
    return false(Reason.TOO_LARGE, message)


def _age(item: _Item) -> tuple[str, str]:
    return str(item.raw["metadata"].get("creationTimestamp", "")), name_of(item.raw)
