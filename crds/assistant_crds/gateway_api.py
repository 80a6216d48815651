"""The contract between the tenant API and the gateway: what one sends and the other reads, named once.

The values are on the wire, in metrics and in the ledger: a change of one is a change for users.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

PURPOSE_HEADER = "x-assistant-purpose"  # of embeddings: a `Purpose`


class Operation(StrEnum):
    """What a model is asked to do: the values of OpenTelemetry's `gen_ai.operation.name`."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"


class Purpose(StrEnum):
    """What a call is for."""

    CHAT = "chat"
    INGEST = "ingest"  # passages of documents that are stored
    SEARCH = "search"  # questions that stored passages are searched with
    OTHER = "other"  # embeddings whose caller names no purpose


PURPOSES: Mapping[Operation, frozenset[Purpose]] = {
    Operation.CHAT: frozenset({Purpose.CHAT}),
    Operation.EMBEDDINGS: frozenset({Purpose.INGEST, Purpose.SEARCH, Purpose.OTHER}),
}
# What a usage report can be grouped by.
USAGE_GROUPS = ("day", "assistant", "user", "model", "provider", "operation", "purpose")


def embeddings_purpose(header: str | None) -> Purpose:
    """Return the purpose that `PURPOSE_HEADER` of a request for embeddings names."""
    named = (header or "").lower()
    return Purpose(named) if named in PURPOSES[Operation.EMBEDDINGS] else Purpose.OTHER
