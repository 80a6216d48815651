"""Spec and status of a `KnowledgeBase`, equal to `crds/knowledgebases.yaml` (a test compares them)."""

from __future__ import annotations

from assistant_crds.meta import Condition, ModelEndpoint, Struct


class Embedding(Struct, frozen=True):
    """The model that turns chunks and questions into vectors; fixed for the life of the knowledge base."""

    name: str
    dimensions: int
    provider: str | None = None
    endpoint: ModelEndpoint | None = None


class Chunking(Struct, frozen=True):
    """How documents are cut, in tokens."""

    max_tokens: int = 250
    overlap_tokens: int | None = None

    @property
    def overlap(self) -> int:
        """How much of a passage is repeated in the next: what is set, else 30 or half a passage, whichever is less."""
        return min(30, self.max_tokens // 2) if self.overlap_tokens is None else self.overlap_tokens


class KnowledgeBaseLimits(Struct, frozen=True):
    """How much may be uploaded; `bytes` is a Kubernetes quantity, of originals."""

    documents: int = 1000
    bytes: str = "1Gi"


class KnowledgeBaseSpec(Struct, frozen=True):
    """What a tenant declares."""

    embedding: Embedding
    display_name: str = ""
    chunking: Chunking = Chunking()
    limits: KnowledgeBaseLimits = KnowledgeBaseLimits()


class KnowledgeBaseStatus(Struct, frozen=True):
    """What the operator counted."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    model: str = ""  # provider/name, as resolved
    documents: int | None = None
    pending: int | None = None
    failed: int | None = None
    outdated: int | None = None  # read by an earlier version of the platform
    vectors: int | None = None
    orphans: int | None = None  # vectors that no document accounts for
    reindexed: str = ""  # the value of the annotation that was last acted on
