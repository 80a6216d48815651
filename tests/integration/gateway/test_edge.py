"""What becomes of requests at the gateway's edge: their log lines, clients that do not read, and its going down."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from gateway_hostile import Raw, chat_body, hostile_server
from gateway_processes import Started, process
from gateway_provider import Provider
from gateway_world import Cluster, Running, own_endpoint, policy, running

NAMESPACE = "edge"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
async def started(cluster: Cluster, settings: Callable, upstream: Provider) -> AsyncIterator[Started]:
    """A gateway process with a tenant that has a limit of three requests."""
    cluster.put_policy(policy(NAMESPACE, ["good", "hangs", "says-401"]))
    cluster.put_policy(policy("edge-limited", ["good"], requests_per_minute=1))
    async with process(settings(drain_seconds=1.0, stream_seconds=10)) as gateway:
        yield gateway


def line_of(gateway: Started, request_id: str) -> dict:
    """Return the one line of a request."""
    (found,) = [line for line in gateway.lines() if line["event"] == "request" and line["request_id"] == request_id]
    return found


async def test_each_request_has_one_line_whatever_became_of_it(cluster: Cluster, started: Started) -> None:
    """Answered, streamed, refused, failed or left alone by its client: id, trace, tenant, code, tokens."""
    url = f"{started.url}/v1/chat/completions"
    token = {"Authorization": f"Bearer {cluster.token(NAMESPACE)}", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    limited = {"Authorization": f"Bearer {cluster.token('edge-limited')}"}
    other = {"Authorization": f"Bearer {cluster.token(NAMESPACE, 'another')}"}
    asked = [
        ("ok", url, token, "good", 200, None),
        ("stream", url, token, "good", 200, None),
        ("no-token", url, {}, "good", 401, "invalid_api_key"),
        ("not-allowed", url, other, "good", 403, "service_account_not_allowed"),
        ("no-assistant", url, token, "nobody", 404, "model_not_found"),
        ("no-path", f"{started.url}/nothing", token, "good", 404, "not_found"),
        ("first", url, limited, "good", 200, None),
        ("second", url, limited, "good", 429, None),
        ("failed", url, token, "says-401", 502, "provider_unauthorized"),
    ]
    async with aiohttp.ClientSession() as client:
        for name, where, headers, model, status, _ in asked:
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": name == "stream"}
            async with client.post(where, json=body, headers={**headers, "x-request-id": name}) as answer:
                await answer.read()
                assert answer.status == status, name
    gone = await Raw(started.url, cluster.token(NAMESPACE)).send(chat_body("hangs"), headers="x-request-id: gone\r\n")
    await asyncio.sleep(0.1)
    gone.close()
    async with asyncio.timeout(5):
        while '"request_id":"gone"' not in started.log.read_text():  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.02)
    for name, _, headers, model, status, code in asked:
        line = line_of(started, name)
        assert line["status"] == status
        assert line["ms"] >= 0
        assert (line.get("tenant") is not None) is (bool(headers) and name != "no-path")
        if code is not None:
            assert line["code"] == code
        if headers is token and name != "no-path":
            assert (line["trace_id"], line["tenant"], line["assistant"]) == (TRACE, NAMESPACE, model)
    assert line_of(started, "ok")["input_tokens"] == line_of(started, "stream")["input_tokens"] == 11
    assert line_of(started, "second")["code"]
    assert (line_of(started, "gone")["status"], line_of(started, "gone")["code"]) == (499, "client_gone")


async def test_a_gateway_that_goes_down_lets_go_of_idle_connections_and_begins_no_stream(
    cluster: Cluster, started: Started
) -> None:
    """A kept one is closed at once; on a new one a whole answer is made, and a stream hears 503 before any byte."""
    token = cluster.token(NAMESPACE)
    body = chat_body("good")
    kept = await Raw(started.url, token).send(body)
    assert await kept.status() == 200
    head = await kept.reader.readuntil(b"\r\n\r\n")
    await kept.reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    started.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(0.9):  # less than the time until it stops to listen
        assert await kept.reader.read() == b""
    late = await Raw(started.url, token).send(chat_body("good", stream=True))
    assert await late.status() == 503
    head = (await late.reader.readuntil(b"\r\n\r\n")).lower()
    assert b"retry-after" in head
    assert b"connection: close" in head
    whole = await Raw(started.url, token).send(body)
    assert await whole.status() == 200
    assert await asyncio.wait_for(started.process.wait(), 20) == 0


@pytest.fixture
async def small(cluster: Cluster, settings: Callable, upstream: Provider) -> AsyncIterator[Running]:
    """A gateway that takes streams of one MiB, with a tenant whose own server sends more."""
    async with hostile_server() as own:
        assistants = {name: own_endpoint(f"{own}/{name}/v1") for name in ("endless", "huge")}
        cluster.put_policy(policy("edge-own", [], assistants=assistants))
        made = settings(max_stream_bytes=2**20)
        text = made.catalog_file.read_text().replace("allowHosts: []", 'allowHosts: ["127.0.0.1"]')
        made.catalog_file.write_text(text)
        async with running(made) as gateway:
            yield gateway


async def test_a_stream_has_a_bound_in_all(cluster: Cluster, small: Running) -> None:
    """It ends with an error event that says so."""
    raw = await Raw(small.url, cluster.token("edge-own")).send(chat_body("endless", stream=True))
    async with asyncio.timeout(20):
        text = b""
        while not text.endswith(b"\r\n0\r\n\r\n"):
            text += await raw.reader.read(2**16)
    *_, last = [line for line in text.decode().splitlines() if line.startswith("data: ")]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "provider_answer_too_large"
    assert len(text) < 2 * 2**20


async def test_an_answer_that_nobody_reads_counts_as_running_and_as_its_tenants_memory(
    cluster: Cluster, small: Running
) -> None:
    """Until its client has taken it or is gone; then all is given back."""
    gateway = small.server._gateway
    assert gateway is not None
    raw = await Raw(small.url, cluster.token("edge-own")).send(chat_body("huge"))
    assert await raw.status() == 200
    await asyncio.sleep(0.1)
    assert gateway.running == 1
    assert gateway.memory.shares.held("edge-own") > 30 * 2**20
    raw.close()
    async with asyncio.timeout(5):
        while gateway.running or gateway.memory.shares.used:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.02)


async def test_a_compressed_body_is_refused_before_it_is_read(cluster: Cluster, small: Running) -> None:
    """A kilobyte would become a megabyte that nobody admitted."""
    headers = {"Authorization": f"Bearer {cluster.token('edge-own')}", "Content-Encoding": "gzip"}
    data = gzip.compress(b" " * 2**20)
    async with small.client.post(f"{small.url}/v1/chat/completions", data=data, headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (415, "unsupported_content_encoding")
