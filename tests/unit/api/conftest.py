"""The API application with everything outside it replaced by objects handed to `create_app`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from api_world import World, client_of, make_world


@pytest.fixture
def world() -> World:
    """The usual tenant."""
    return make_world()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the tenant's API key."""
    async with client_of(world) as client:
        yield client
