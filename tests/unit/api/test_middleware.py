"""Every request gets an id, a metric and a trace; every answer the headers that protect its reader."""

from __future__ import annotations

import httpx
import pytest
from api_world import World, client_of, make_world
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import REGISTRY

CHAT = "/v1/chat/completions"
HELLO = {"model": "plain", "messages": [{"role": "user", "content": "Hello"}]}


def count(route: str, status: int, method: str = "GET") -> float:
    labels = {"part": "api", "method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("assistant_http_requests_total", labels) or 0.0


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/nobody", "/nowhere", "/livez", "/health", "/schema"])
async def test_every_answer_has_an_id_and_protective_headers(client: httpx.AsyncClient, path: str) -> None:
    """Errors and unknown paths too."""
    answer = await client.get(path)
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


async def test_other_origins_are_not_let_in(client: httpx.AsyncClient) -> None:
    """CORS is off: no answer allows an origin."""
    answer = await client.options(
        "/v1/models", headers={"origin": "https://evil", "access-control-request-method": "GET"}
    )
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_the_callers_request_id_is_kept_and_passed_on(client: httpx.AsyncClient, world: World) -> None:
    """One id through all parts."""
    answer = await client.post(CHAT, json=HELLO, headers={"x-request-id": "req-1.a:b_c"})
    assert answer.headers["x-request-id"] == "req-1.a:b_c"
    assert world.gateway.headers[0]["x-request-id"] == "req-1.a:b_c"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "<script>", "é"])
async def test_a_strange_request_id_is_replaced(client: httpx.AsyncClient, bad: str) -> None:
    """It would end up in logs and headers."""
    answer = await client.get("/v1/models", headers={"x-request-id": bad.encode()})
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/v1/models", "/v1/models", 200),
        ("/v1/models/support", "/v1/models/{name}", 200),
        ("/v1/models/nobody", "/v1/models/{name}", 404),
        ("/some/thing", "unmatched", 404),
        ("/v1/other", "unmatched", 404),
    ],
)
async def test_requests_are_counted_by_route(client: httpx.AsyncClient, path: str, route: str, status: int) -> None:
    """By template, so that names and ids make no new series."""
    before = count(route, status)
    await client.get(path)
    assert count(route, status) == before + 1


async def test_an_invented_method_makes_no_new_series(client: httpx.AsyncClient) -> None:
    """Labels come from a closed set."""
    before = count("unmatched", 405, "_OTHER") + count("/v1/models", 405, "_OTHER")
    await client.request("BREW", "/v1/models")
    assert count("unmatched", 405, "_OTHER") + count("/v1/models", 405, "_OTHER") == before + 1


async def test_the_trace_goes_on_to_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """The span that asks the gateway is part of the caller's trace."""
    spans: list[trace.SpanContext] = []
    tracer = TracerProvider().get_tracer("test")
    monkeypatch.setattr("assistant_api.chat.service._tracer", tracer)
    world = make_world()
    world.app.tracer = tracer
    inner = world.gateway.chat

    async def chat(body: bytes, headers: dict[str, str]):  # type: ignore[no-untyped-def]
        spans.append(trace.get_current_span().get_span_context())
        return await inner(body, headers)

    world.gateway.chat = chat  # type: ignore[method-assign,assignment]
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with client_of(world) as client:
        await client.post(CHAT, json=HELLO, headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    assert [f"{span.trace_id:032x}" for span in spans] == [trace_id]


@pytest.mark.parametrize("broken", ["", "00-zz-zz-01", "x" * 5000])
async def test_a_broken_trace_context_starts_a_new_trace(client: httpx.AsyncClient, broken: str) -> None:
    """And harms nothing else."""
    assert (await client.get("/v1/models", headers={"traceparent": broken})).status_code == 200


async def test_the_interface_is_described(client: httpx.AsyncClient) -> None:
    """OpenAPI at /schema, with the chat's body and the key that is needed."""
    description = (await client.get("/schema")).json()
    chat = description["paths"][CHAT]["post"]
    assert description["openapi"].startswith("3.1")
    assert chat["requestBody"]["content"]["application/json"]["schema"]["required"] == ["model", "messages"]
    assert "text/event-stream" in chat["responses"]["200"]["content"]
    assert description["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert {"/health", "/readyz", "/v1/models"} <= description["paths"].keys()
