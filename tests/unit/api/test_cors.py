"""Scripts of web pages may call where the tenant's configuration names their origin, and nowhere else."""

from __future__ import annotations

import httpx
import pytest
from api_world import World, client_of, document, make_world

PAGE = "https://app.acme.example"
CHAT = "/v1/chat/completions"
ASKED = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


async def answers(origins: list[str], origin: str = PAGE) -> list[httpx.Response]:
    """What a page of an origin is answered: before a chat, by a list, by an error."""
    world: World = make_world(document(allowed_origins=origins))
    async with client_of(world) as client, client_of(world, None) as anonymous:
        return [
            await anonymous.options(CHAT, headers={**ASKED, "origin": origin}),
            await client.get("/v1/models", headers={"origin": origin}),
            await anonymous.get("/v1/models", headers={"origin": origin}),
        ]


async def test_an_allowed_page_may_ask_and_read() -> None:
    """It is told beforehand, without a key, what it may send; errors can be read like answers."""
    asked, listed, refused = await answers([PAGE])
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["access-control-allow-methods"] == "GET, POST, DELETE"
    assert asked.headers["access-control-allow-headers"] == ASKED["access-control-request-headers"]
    assert (listed.status_code, refused.status_code) == (200, 401)
    for answer in (asked, listed, refused):
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in answer.headers.get_list("vary")
        assert "access-control-allow-credentials" not in answer.headers
        assert "retry-after" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origins", [[], ["https://other.example"], ["http://app.acme.example"], [f"{PAGE}:8443"]])
async def test_no_other_page_may(origins: list[str]) -> None:
    """Nor is anybody unless it is set: the answers are those to every caller."""
    asked, listed, _ = await answers(origins)
    assert asked.status_code in {401, 405}
    assert listed.status_code == 200
    assert not [name for answer in (asked, listed) for name in answer.headers if name.startswith("access-control")]


async def test_all_pages_may_where_it_says_so() -> None:
    """Then the answer is the same to all, and needs no `Vary`."""
    for answer in await answers(["*"], "https://any.example"):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "Origin" not in answer.headers.get_list("vary")


async def test_header_names_are_not_echoed_unseen() -> None:
    """What is no list of names is left out."""
    world = make_world(document(allowed_origins=["*"]))
    async with client_of(world) as client:
        answer = await client.options(CHAT, headers={**ASKED, "access-control-request-headers": "a; b\x00"})
    assert "access-control-allow-headers" not in answer.headers
