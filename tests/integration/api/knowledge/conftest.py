"""What the knowledge tests share."""

from __future__ import annotations

import pytest
from api_tenant import Tenant, make_tenant

from assistant_cluster import stores


@pytest.fixture
async def tenant(postgres: stores.Postgres, weaviate_store: stores.Weaviate) -> Tenant:
    """A tenant of its own for one test."""
    return await make_tenant(postgres, weaviate_store)
