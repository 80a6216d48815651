"""The page is served as it was built, with headers that let nothing else in."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from api_world import World, client_of

from assistant_api.page.files import ASSETS, INDEX, STATIC

SCRIPT_BYTES = 150 * 1024  # compressed, of the first load
NAMES = sorted(path.name for path in (STATIC / ASSETS).iterdir())


@pytest.fixture
async def anybody(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with client_of(world, None) as client:
        yield client


async def test_the_page_needs_no_key_and_lets_nothing_else_in(anybody: httpx.AsyncClient) -> None:
    """Scripts and styles of this origin only, no inline ones, no strings as markup, no frames, no referrer."""
    answer = await anybody.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    policy = dict(each.strip().split(" ", 1) for each in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert len(answer.headers.get_list("content-security-policy")) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_assets_are_kept_for_ever(anybody: httpx.AsyncClient, name: str) -> None:
    """Their names are hashes of their contents; browsers that can get them compressed."""
    answer = await anybody.get(f"/{ASSETS}/{name}")
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content == (STATIC / ASSETS / name).read_bytes()
    plain = await anybody.get(f"/{ASSETS}/{name}", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == answer.content


@pytest.mark.parametrize("name", ["none.js", "..%2Findex.html", "%2e%2e/index.html", "index.html"])
async def test_only_assets_are_assets(anybody: httpx.AsyncClient, name: str) -> None:
    """No name leads to another file."""
    assert (await anybody.get(f"/{ASSETS}/{name}")).status_code == 404


def test_the_first_load_is_small_and_comes_from_here() -> None:
    """The document names assets that are there and nothing of elsewhere; its scripts have at most 150 KiB."""
    index = (STATIC / INDEX).read_text()
    named = re.findall(r'(?:src|href)="([^"]+)"', index)
    assert {name.removeprefix(f"/{ASSETS}/") for name in named} <= set(NAMES)
    assert "<script>" not in index
    assert "style=" not in index
    scripts = [(STATIC / ASSETS / name).read_bytes() for name in NAMES if name.endswith(".js")]
    assert 0 < sum(len(gzip.compress(script)) for script in scripts) <= SCRIPT_BYTES


async def test_answers_of_the_api_keep_their_own_policy(client: httpx.AsyncClient) -> None:
    """What the API answers is no page and may load nothing."""
    answer = await client.get("/v1/models")
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["cache-control"] == "no-store"


async def test_the_page_is_no_part_of_the_described_api(client: httpx.AsyncClient) -> None:
    """What only the page uses may change with it."""
    paths = (await client.get("/schema")).json()["paths"]
    assert not [path for path in paths if path == "/" or "assets" in path or "locales" in path or "cookie" in path]
