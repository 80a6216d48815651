"""Only a caller with one of the tenant's keys gets in."""

from __future__ import annotations

import hashlib

import httpx
import pytest
from api_world import KEY, World, client_of, document

from assistant_api.auth.service import identify
from assistant_api.errors import ApiError
from assistant_api.tenant_config import ActiveConfig
from assistant_crds.contracts import ApiKeyConfig

SECOND = "ak_" + "s" * 43
PROTECTED = ["/v1/models", "/v1/models/support", "/api/v1/knowledge-bases"]


def active_config(*keys: str) -> ActiveConfig:
    digests = [
        ApiKeyConfig(name=f"key-{n}", sha256=hashlib.sha256(key.encode()).hexdigest()) for n, key in enumerate(keys)
    ]
    return ActiveConfig.of(document(api_keys=digests))


def test_a_key_names_its_owner() -> None:
    """Any of several keys works; the identity carries its name, not the key."""
    assert identify(f"Bearer {SECOND}", active_config(KEY, SECOND)).name == "key-1"
    assert identify(f"bearer  {KEY} ", active_config(KEY, SECOND)).name == "key-0"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Bearer {KEY.upper()}",
        f"Bearer {hashlib.sha256(KEY.encode()).hexdigest()}",
        "Bearer " + "x" * 100_000,
        "Bearer \udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_anything_else_is_refused(header: str | None) -> None:
    """Near misses, other schemes, the digest itself and oversized headers alike."""
    with pytest.raises(ApiError) as caught:
        identify(header, active_config(KEY))
    assert caught.value.kind.status == 401


def test_nobody_gets_in_without_configured_keys() -> None:
    """An empty list of keys is not an open door."""
    with pytest.raises(ApiError):
        identify(f"Bearer {KEY}", active_config())


@pytest.mark.parametrize("path", PROTECTED)
async def test_protected_routes_ask_for_a_key(world: World, path: str) -> None:
    """401 with the scheme to use."""
    async with client_of(world, key=None) as client:
        answer = await client.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_chat_without_a_key_never_reaches_the_gateway(world: World) -> None:
    """The check comes before the body is even read."""
    async with client_of(world, key="ak_" + "x" * 43) as client:
        answer = await client.post("/v1/chat/completions", content=b"{")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert world.gateway.asked == []


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/health/detailed", "/schema"])
async def test_health_and_the_description_are_open(world: World, path: str) -> None:
    """Probes and people who look up the interface have no key."""
    async with client_of(world, key=None) as client:
        assert (await client.get(path)).status_code in {200, 503}


async def test_a_key_that_was_taken_away_stops_working(world: World, client: httpx.AsyncClient) -> None:
    """A new configuration counts from the next request on."""
    assert (await client.get("/v1/models")).status_code == 200
    world.config.replace(document(api_keys=[]))
    assert (await client.get("/v1/models")).status_code == 401
