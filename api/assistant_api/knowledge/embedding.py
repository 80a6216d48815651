"""Vectors from the gateway, checked against what the knowledge base was made for."""

from __future__ import annotations

from collections.abc import Sequence

from assistant_api.gateway import Gateway
from assistant_crds.contracts import KnowledgeBaseConfig
from assistant_crds.gateway_api import Purpose


class DimensionMismatchError(Exception):
    """The embedding model's vectors do not fit the knowledge base; the sentence names both sizes."""


async def embed(
    gateway: Gateway, knowledge_base: KnowledgeBaseConfig, texts: Sequence[str], purpose: Purpose
) -> list[list[float]]:
    """Return one vector per text. Raises DimensionMismatchError, GatewayError or GatewayUnreachableError.

    The store's own answer to a vector of the wrong size is an internal error, which would explain nothing.
    """
    vectors = await gateway.embeddings(texts, knowledge_base.name, purpose)
    for vector in vectors:
        if len(vector) != knowledge_base.dimensions:
            raise DimensionMismatchError(
                f"The embedding model returned {len(vector)} dimensions; the knowledge base"
                f" {knowledge_base.name} is set to {knowledge_base.dimensions}."
            )
    return vectors
