"""One tenant with people for each module: two API processes on one database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from accounts_world import AccountsWorld, Caller, make_accounts_world
from api_gateway import FakeGateway
from api_process import ApiProcess

from assistant_cluster import stores


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres: stores.Postgres, gateway: FakeGateway) -> AccountsWorld:
    """A tenant nobody has signed in to."""
    return await make_accounts_world(postgres, gateway.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apis(world: AccountsWorld, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[ApiProcess]]:
    """Two pods of it."""
    folder = tmp_path_factory.mktemp("accounts")
    with world.api(folder / "one") as one, world.api(folder / "two") as two:
        yield [one, two]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(apis: list[ApiProcess]) -> AsyncIterator[list[Caller]]:
    """Somebody at each pod, not signed in."""
    async with (
        httpx.AsyncClient(base_url=apis[0].url, timeout=60) as one,
        httpx.AsyncClient(base_url=apis[1].url, timeout=60) as two,
    ):
        yield [Caller(one), Caller(two)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owner(callers: list[Caller]) -> Caller:
    """The first owner, signed in at the first pod."""
    return await callers[0].sign_in()
