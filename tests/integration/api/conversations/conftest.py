"""An API process with a tenant's real database, and two callers of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import msgspec
import pytest
from api_gateway import FakeGateway
from api_process import KEY, ApiProcess, api_process, assistant, document
from api_tenant import make_database
from callers import caller

from assistant_cluster import stores
from assistant_crds import naming
from assistant_crds.contracts import ApiKeyConfig, TenantConfig, seal

SECOND_KEY = "ak_" + "s" * 43


@pytest.fixture(scope="module")
def dsn(postgres: stores.Postgres) -> str:
    """A tenant's database, as its pods reach it."""
    return asyncio.run(make_database(postgres, naming.tenant_key(str(uuid4()))))


@pytest.fixture(scope="module")
def config(gateway: FakeGateway) -> TenantConfig:
    """A tenant with the assistant `plain` and two API keys."""
    found = document(gateway.url, [assistant("plain")])
    second = ApiKeyConfig(name="second", sha256=hashlib.sha256(SECOND_KEY.encode()).hexdigest())
    return seal(msgspec.structs.replace(found, api_keys=[*found.api_keys, second]))


@pytest.fixture(scope="module")
def api(config: TenantConfig, dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """A running API."""
    folder = tmp_path_factory.mktemp("conversations") / "pod"
    with api_process(folder, config, {"postgres_dsn": dsn}) as api:
        api.wait_ready()
        yield api


@pytest.fixture
async def client(api: ApiProcess) -> AsyncIterator[httpx.AsyncClient]:
    """The first caller."""
    async with caller(api, KEY) as client:
        yield client


@pytest.fixture
async def stranger(api: ApiProcess) -> AsyncIterator[httpx.AsyncClient]:
    """Another caller of the same tenant."""
    async with caller(api, SECOND_KEY) as client:
        yield client
