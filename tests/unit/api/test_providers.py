"""`/api/v1/providers`: what may stand in the tenant's resources."""

from __future__ import annotations

import httpx
import msgspec
import pytest
from api_world import World

from assistant_api.gateway import GatewayError, GatewayUnreachableError
from assistant_api.providers.schemas import Provider, ProviderList
from assistant_gateway.tenants.offers import Offer

OFFER = {
    "provider": "openai",
    "kind": "openai",
    "embeddings": True,
    "available": True,
    "allowed": ["gpt-*"],
    "models": ["gpt-5-mini"],
    "complete": True,
}


async def test_what_the_gateway_offers_is_listed(client: httpx.AsyncClient, world: World) -> None:
    """Every member of the gateway's answer has its place in the API's."""
    world.gateway.offers = msgspec.json.encode({"data": [Offer(**OFFER)]})
    answer = await client.get("/api/v1/providers")
    assert (answer.status_code, answer.json()) == (200, {"data": [OFFER]})
    assert Provider.__struct_fields__ == Offer.__struct_fields__
    assert ProviderList.__struct_fields__ == ("data",)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (GatewayUnreachableError("refused"), 503, "gateway_unreachable"),
        (GatewayError(404, "policy_not_found", "No policy is loaded."), 503, "not_ready"),
        (GatewayError(401, "unauthorized", "The token is old."), 502, "gateway_refused"),
    ],
)
async def test_a_gateway_that_cannot_say_is_told_as_such(
    client: httpx.AsyncClient, world: World, error: Exception, status: int, code: str
) -> None:
    """None of it is the caller's doing, and all of it passes."""
    world.gateway.offers = error
    answer = await client.get("/api/v1/providers")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_an_answer_that_is_not_understood_is_no_crash(client: httpx.AsyncClient, world: World) -> None:
    """A gateway of another version, say."""
    world.gateway.offers = b'{"providers": []}'
    answer = await client.get("/api/v1/providers")
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_unreachable")


async def test_a_key_is_needed(client: httpx.AsyncClient) -> None:
    """As for everything under /api."""
    answer = await client.get("/api/v1/providers", headers={"authorization": "Bearer nobody"})
    assert answer.status_code == 401
