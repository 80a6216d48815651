"""One platform that all clients share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from client_platform import ClientPlatform, client_platform

from assistant_cluster import stores


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(
    postgres: stores.Postgres,
    redis_store: stores.Redis,
    weaviate_store: stores.Weaviate,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ClientPlatform]:
    """A platform with a tenant `acme`."""
    folder = tmp_path_factory.mktemp("clients")
    async with client_platform(folder, postgres, redis_store, weaviate_store) as platform:
        yield platform
