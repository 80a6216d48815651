"""What the knowledge tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from api_tenant import Tenant, make_tenant
from knowledge_world import World

from assistant_cluster import stores


@pytest.fixture
async def tenant(postgres: stores.Postgres, weaviate_store: stores.Weaviate) -> Tenant:
    """A tenant of its own for one test."""
    return await make_tenant(postgres, weaviate_store)


@pytest.fixture
async def world(tenant: Tenant) -> AsyncIterator[World]:
    """The tenant with its clients, as its narrow credentials."""
    made = World.of(tenant)
    try:
        yield made
    finally:
        await made.close()
