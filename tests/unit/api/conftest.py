"""The API application with everything outside it replaced by objects handed to `create_app`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from api_world import World, client_of, make_world


@pytest.fixture(scope="session")
def shared_world() -> World:
    """One application for all tests that only ask it: building one takes longer than most of them."""
    return make_world()


@pytest.fixture
def world(shared_world: World) -> World:
    """The usual tenant; whatever another test told the fakes is forgotten."""
    shared_world.reset()
    return shared_world


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the tenant's API key."""
    async with client_of(world) as client:
        yield client
