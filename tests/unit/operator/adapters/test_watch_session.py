"""What kopf asks of the API server, and what it gets."""

import kopf
import pytest
from aiohttp import web

from assistant_operator.adapters.watch_session import session


@pytest.fixture
async def connected():
    """A server that repeats what it was asked for, and a session to it."""

    async def answer(request: web.Request) -> web.Response:
        kind = "PartialObjectMetadataList" if "List" in request.headers["Accept"] else "APIResourceList"
        return web.json_response({"kind": kind, "items": None, "accept": request.headers["Accept"]})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made = session(kopf.ConnectionInfo(server=f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"))
    yield made
    await made.aiohttp_session.close()
    await runner.cleanup()


@pytest.mark.parametrize("path", ["/api/v1/secrets", "/apis/apps/v1/deployments"])
async def test_lists_and_watches_ask_for_metadata(connected, path):
    """Objects are listed and watched without their content; an empty list is a list."""
    async with connected.aiohttp_session.get(f"{connected.server}{path}", params={"limit": "1"}) as answer:
        body = await answer.json()
    assert "as=PartialObjectMetadataList;" in body["accept"]
    assert body["items"] == []
    async with connected.aiohttp_session.get(f"{connected.server}{path}", params={"watch": "true"}) as answer:
        assert "as=PartialObjectMetadata;" in (await answer.json())["accept"]


@pytest.mark.parametrize("path", ["/api/v1", "/apis/apps/v1", "/version", "/apis"])
async def test_everything_else_is_asked_as_it_is(connected, path):
    """What kinds there are is no object."""
    async with connected.aiohttp_session.get(f"{connected.server}{path}") as answer:
        body = await answer.json()
    assert "PartialObjectMetadata" not in body["accept"]
    assert body["items"] is None
