"""What becomes of a provider's answer, good or bad, on its way through a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from gateway_provider import BEHAVIOURS, SECRET, USAGE, WORDS, Provider
from gateway_world import Cluster, Running, own_endpoint, policy, running, until_still

from assistant_gateway.server import Server
from assistant_observability import metrics

NAMESPACE = "relay"


pytestmark = pytest.mark.usefixtures("tenant")


@pytest.fixture
async def tenant(cluster: Cluster, gateway: Running, ask: Callable) -> None:
    """Wait for a tenant that has an assistant for each way in which a provider may behave."""
    cluster.put_policy(policy(NAMESPACE, sorted(BEHAVIOURS)))
    headers = {"Authorization": f"Bearer {cluster.token(NAMESPACE)}"}
    async with asyncio.timeout(30):
        while True:
            async with gateway.client.get(f"{gateway.url}/v1/models", headers=headers) as answer:
                if len((await answer.json())["data"]) == len(BEHAVIOURS):
                    return
            await asyncio.sleep(0.02)


async def once_known(ask: Callable, name: str, until: int = 0) -> tuple[int, dict, str]:
    """Ask until the gateway knows the assistant, or answers with the status `until`; return status, headers, body."""
    async with asyncio.timeout(30):
        while True:
            async with ask(NAMESPACE, name) as answer:
                text = await answer.text()
                if answer.status == until or (not until and answer.status != 404):
                    return answer.status, dict(answer.headers), text
            await asyncio.sleep(0.02)


async def until_closed(upstream: Provider) -> None:
    """Wait until the provider has no answer in work any more; a second at most."""
    async with asyncio.timeout(1):
        while upstream.open:  # noqa: ASYNC110  # the provider is plain on purpose
            await asyncio.sleep(0.01)


def events(text: str) -> list:
    """Return the data of a stream's events, decoded; fail when an event is not whole."""
    assert text.endswith("\n\n")
    found = []
    for event in text[:-2].split("\n\n"):
        assert event.startswith("data: "), event
        data = event.removeprefix("data: ")
        found.append(data if data == "[DONE]" else json.loads(data))
    return found


def text_of(found: list) -> str:
    """Return the words of a stream."""
    return "".join(
        choice["delta"].get("content", "")
        for event in found
        if isinstance(event, dict)
        for choice in event.get("choices", [])
    )


async def test_answer_is_passed_on_with_the_platform_key(ask: Callable, upstream: Provider) -> None:
    """A whole answer arrives unchanged, made with the platform's key and the route's model, and says who answered."""
    async with ask(NAMESPACE, "good", some_new_field={"a": [1.50, None]}) as answer:
        body = await answer.json()
    assert answer.status == 200
    assert body["choices"][0]["message"]["content"] == "".join(WORDS)
    assert answer.headers["x-assistant-model"] == "demo/good"
    assert len(answer.headers["x-request-id"]) == 32
    assert upstream.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert upstream.bodies[0]["some_new_field"] == {"a": [1.5, None]}


async def test_request_id_and_trace_travel(ask: Callable, upstream: Provider) -> None:
    """A caller's request id comes back, its trace context reaches the provider, its other headers do not."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"x-request-id": "req-1", "traceparent": trace, "Cookie": "a=b", "x-assistant-user": "u1"}
    async with ask(NAMESPACE, "good", headers=headers) as answer:
        assert answer.headers["x-request-id"] == "req-1"
    assert upstream.headers[0]["traceparent"] == trace
    assert not {"Cookie", "x-assistant-user", "x-request-id"} & set(upstream.headers[0])


async def test_stream_arrives_event_by_event_without_the_usage_nobody_asked_for(
    ask: Callable, upstream: Provider, gateway: Running
) -> None:
    """A stream is passed on as it is; the usage that the gateway asked for is counted and kept back."""
    counted = (
        'assistant_model_tokens_total{assistant="good",direction="output",model="good",provider="demo",tenant="relay"}'
    )
    before = await gateway.metric(counted)
    async with ask(NAMESPACE, "good", stream=True) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        found = events(await answer.text())
    assert text_of(found) == "".join(WORDS)
    assert found[-1] == "[DONE]"
    assert all(event["choices"] for event in found[:-1])
    assert upstream.bodies[0]["stream_options"] == {"include_usage": True}
    assert await gateway.metric(counted) == before + USAGE["completion_tokens"]


async def test_stream_keeps_the_usage_a_client_asked_for(ask: Callable) -> None:
    """A client that asks for usage gets the event that carries it."""
    async with ask(NAMESPACE, "good", stream=True, stream_options={"include_usage": True}) as answer:
        found = events(await answer.text())
    assert found[-2]["usage"] == USAGE
    assert found[-2]["choices"] == []


async def test_stream_in_single_bytes_arrives_in_whole_events(ask: Callable) -> None:
    """However a provider cuts its bytes, the client gets whole events in order."""
    async with ask(NAMESPACE, "slow-bytes", stream=True) as answer:
        async for piece in answer.content.iter_any():
            assert piece.endswith(b"\n\n")
            found = events(piece.decode())
    assert found[-1] == "[DONE]"


async def test_events_are_not_held_back(ask: Callable) -> None:
    """An event reaches the client before the provider has sent the next one."""
    async with ask(NAMESPACE, "endless", stream=True) as answer:
        first = await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 1)
    assert text_of(events(first.decode())) == "again "


async def test_a_stream_that_begins_with_what_nobody_asked_for_has_its_head(ask: Callable) -> None:
    """The head goes out before whatever is passed on first."""
    async with ask(NAMESPACE, "counts-first", stream=True) as answer:
        assert answer.status == 200
        assert text_of(events(await answer.text())) == "".join(WORDS)


async def test_a_client_that_does_not_read_slows_the_provider_down(ask: Callable, upstream: Provider) -> None:
    """Nothing piles up in between: the provider stops writing when buffers are full, and goes on when they are not."""
    async with ask(NAMESPACE, "flood", stream=True) as answer:
        await answer.content.readuntil(b"\n\n")
        written = await until_still(lambda: upstream.written)
        assert upstream.open == 1
        for _ in range(written // 2500):
            event = await answer.content.readuntil(b"\n\n")
            assert text_of(events(event.decode())) == "x" * 2000
        assert upstream.written > written
        answer.close()


@pytest.mark.parametrize("model", ["no-done", "whole-then-cut", "whole-then-silent"])
async def test_missing_done_is_added_to_a_whole_answer(model: str, ask: Callable, gateway: Running) -> None:
    """A provider that finishes without saying so, however it goes then, has not failed; its stream is well formed."""
    line = (
        f'assistant_model_calls_total{{assistant="{model}",model="{model}",operation="chat",outcome="ok",'
        'provider="demo",purpose="chat",tenant="relay"}'
    )
    before = await gateway.metric(line)
    async with ask(NAMESPACE, model, stream=True) as answer:
        found = events(await answer.text())
    assert text_of(found) == "Hello"
    assert found[-1] == "[DONE]"
    assert await gateway.metric(line) == before + 1


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("cut", "provider_error"),
        ("short", "provider_error"),
        ("stalls", "provider_timeout"),
        ("huge-event", "provider_answer_too_large"),
    ],
)
async def test_broken_stream_ends_with_an_error_event(
    model: str, code: str, settings: Callable, ask: Callable, gateway: Running
) -> None:
    """A stream that breaks ends with an error event after whole events, never silently, and is counted as failed."""
    outcome = "provider_timeout" if code == "provider_timeout" else "provider_error"
    line = (
        f'assistant_model_calls_total{{assistant="{model}",model="{model}",operation="chat",outcome="{outcome}",'
        'provider="demo",purpose="chat",tenant="relay"}'
    )
    before = await gateway.metric(line)
    async with ask(NAMESPACE, model, stream=True) as answer:
        assert answer.status == 200
        found = events(await answer.text())
    assert found[-1]["error"]["code"] == code
    assert "[DONE]" not in found
    assert text_of(found[:-1]) == ("" if model == "huge-event" else "Hel")
    assert await gateway.metric(line) == before + 1


async def test_error_event_of_the_provider_is_passed_on(ask: Callable) -> None:
    """A provider that reports an error in its stream is heard as it is, once."""
    async with ask(NAMESPACE, "fails-midway", stream=True) as answer:
        found = events(await answer.text())
    assert [event["error"]["message"] for event in found if "error" in event] == ["overloaded"]


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("says-400", 400, "context_length_exceeded"),
        ("says-401", 502, "provider_unauthorized"),
        ("says-404", 502, "provider_model_not_found"),
        ("says-429", 429, "provider_rate_limit_exceeded"),
        ("says-500", 502, "provider_error"),
        ("says-503", 502, "provider_error"),
        ("garbage", 502, "provider_error"),
        ("hidden-error", 502, "provider_error"),
        ("redirects", 502, "provider_error"),
        ("hangs", 504, "provider_timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_provider_failure_has_its_own_class(
    model: str, status: int, code: str, stream: bool, ask: Callable
) -> None:
    """Whatever a provider does wrong before its answer begins has a status and a code of its own, never a bare 500."""
    async with ask(NAMESPACE, model, stream=stream) as answer:
        body = await answer.json()
    assert (answer.status, body["error"]["code"]) == (status, code)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-assistant-model"] == f"demo/{model}"


async def test_answer_that_nobody_can_take_has_a_code_of_its_own(ask: Callable) -> None:
    """A hundred megabytes are cut off; asked as a stream they are no stream."""
    for stream, code in ((False, "provider_answer_too_large"), (True, "provider_error")):
        async with ask(NAMESPACE, "huge", stream=stream) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (502, code)


async def test_retry_after_of_the_provider_is_kept(ask: Callable) -> None:
    """A provider that says when to come back is quoted."""
    async with ask(NAMESPACE, "says-429") as answer:
        assert answer.headers["Retry-After"] == "7"
    async with ask(NAMESPACE, "says-503") as answer:
        assert answer.headers["Retry-After"] == "3"


async def test_refused_request_names_the_field_the_provider_named(ask: Callable) -> None:
    """A provider's 400 keeps its parameter and its words."""
    async with ask(NAMESPACE, "says-400") as answer:
        error = (await answer.json())["error"]
    assert error["param"] == "messages"
    assert "said 400" in error["message"]


async def test_echoed_key_never_leaves(ask: Callable) -> None:
    """A provider that repeats the platform's key in an error does not give it to the tenant."""
    async with ask(NAMESPACE, "echoes") as answer:
        text = await answer.text()
    assert answer.status == 400
    assert SECRET not in text
    assert "***" in text


async def test_unreachable_provider(cluster: Cluster, ask: Callable, gateway: Running) -> None:
    """A provider that refuses the connection is a 502 that names the provider."""
    changed = policy(NAMESPACE, [])
    gone = policy(NAMESPACE, ["good"]).assistants["good"]
    route = type(gone.route)(model="any", provider="gone")
    changed.assistants["lost"] = type(gone)(route=route)
    cluster.put_policy(changed)
    status, _, text = await once_known(ask, "lost")
    error = json.loads(text)["error"]
    assert (status, error["code"]) == (502, "provider_unreachable")
    assert "gone" in error["message"]


async def test_client_that_hangs_up_ends_the_provider_call(ask: Callable, upstream: Provider, gateway: Running) -> None:
    """Within a second of a client's going away the provider's connection is closed and the call is settled."""
    line = (
        'assistant_model_calls_total{assistant="endless",model="endless",operation="chat",outcome="client_gone",'
        'provider="demo",purpose="chat",tenant="relay"}'
    )
    before = await gateway.metric(line)
    answer = await ask(NAMESPACE, "endless", stream=True)
    await answer.content.readuntil(b"\n\n")
    assert upstream.open == 1
    answer.close()
    await until_closed(upstream)
    assert await gateway.metric(line) == before + 1


async def test_client_that_hangs_up_before_the_answer_ends_the_provider_call(
    settings: Callable, cluster: Cluster, upstream: Provider
) -> None:
    """A client that does not wait for the first byte frees the provider, long before any time-out would."""
    patient = settings()
    patient.catalog_file.write_text(
        patient.catalog_file.read_text().replace("firstByteSeconds: 0.5", "firstByteSeconds: 30")
    )
    headers = {"Authorization": f"Bearer {cluster.token(NAMESPACE)}"}
    body = {"model": "hangs", "messages": [{"role": "user", "content": "Hi"}]}
    async with running(patient) as started:
        url = f"{started.url}/v1/chat/completions"
        asking = asyncio.ensure_future(started.client.post(url, json=body, headers=headers).__aenter__())
        await asyncio.sleep(0.5)
        assert upstream.open == 1
        asking.cancel()
        await until_closed(upstream)


async def test_redirect_is_not_followed(ask: Callable, upstream: Provider) -> None:
    """A provider that points elsewhere is not followed there, with the key in hand."""
    async with ask(NAMESPACE, "redirects") as answer:
        assert "redirect" in (await answer.json())["error"]["message"]
    assert len(upstream.bodies) == 1


async def test_embeddings_get_the_dimensions_of_the_knowledge_base(
    cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """Embeddings go to the knowledge base's model with its dimensions, whatever the request says, and are counted."""
    headers = {"Authorization": f"Bearer {cluster.token(NAMESPACE)}", "X-Assistant-Purpose": "ingest"}
    body = {"model": "handbook", "input": ["a", "b"], "dimensions": 3}
    async with gateway.client.post(f"{gateway.url}/v1/embeddings", json=body, headers=headers) as answer:
        document = await answer.json()
    assert [len(item["embedding"]) for item in document["data"]] == [8, 8]
    assert upstream.bodies[0] == {"model": "embed", "input": ["a", "b"], "dimensions": 8}
    line = (
        'assistant_model_calls_total{assistant="handbook",model="embed",operation="embeddings",outcome="ok",'
        'provider="demo",purpose="ingest",tenant="relay"}'
    )
    assert await gateway.metric(line) >= 1


@pytest.mark.parametrize(
    ("raw", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b"[]", None, "invalid_json"),
        (b"\xff\xfe", None, "invalid_json"),
        (b"{}", "model", "missing_field"),
        (b'{"model": 3}', "model", "invalid_value"),
        (b'{"model": "good"}', "messages", "missing_field"),
        (b'{"model": "good", "messages": "hi"}', "messages", "invalid_value"),
        (b'{"model": "good", "messages": []}', "messages", "invalid_value"),
        (b'{"model": "good", "messages": [{}], "stream": "yes"}', "stream", "invalid_value"),
        (b'{"model": "good", "messages": [{}], "stream_options": 1}', "stream_options", "invalid_value"),
    ],
)
async def test_malformed_body_names_the_field(
    raw: bytes, param: str | None, code: str, cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """A body that cannot be served is a 400 that names the field, and no provider hears of it."""
    headers = {"Authorization": f"Bearer {cluster.token(NAMESPACE)}", "Content-Type": "application/json"}
    async with gateway.client.post(f"{gateway.url}/v1/chat/completions", data=raw, headers=headers) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert not upstream.bodies


async def test_body_that_is_too_large_is_refused(cluster: Cluster, gateway: Running) -> None:
    """More than ten mebibytes are a 413 in the envelope."""
    headers = {"Authorization": f"Bearer {cluster.token(NAMESPACE)}"}
    body = {"model": "good", "messages": [{"role": "user", "content": "x" * (10 * 2**20)}]}
    async with gateway.client.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (413, "request_too_large")


async def test_own_endpoint_on_the_loopback_interface_is_refused(
    cluster: Cluster, gateway: Running, ask: Callable, upstream: Provider
) -> None:
    """A tenant cannot make the gateway call an address inside the platform, by number or by name."""
    changed = policy(NAMESPACE, [])
    changed.assistants["by-number"] = own_endpoint(upstream.url, key="tenant-key-1")
    changed.assistants["by-name"] = own_endpoint(upstream.url.replace("127.0.0.1", "localhost"), key="tenant-key-1")
    changed.assistants["metadata"] = own_endpoint("http://169.254.169.254/v1")
    changed.assistants["mapped"] = own_endpoint("http://[::ffff:127.0.0.1]:80/v1")
    cluster.put_policy(changed)
    for name in changed.assistants:
        status, _, text = await once_known(ask, name)
        assert (status, json.loads(text)["error"]["code"]) == (502, "provider_unreachable")
        assert "tenantEndpoints.allowHosts" in text
        assert "tenant-key-1" not in text
    assert not upstream.bodies


async def test_own_endpoint_that_the_platform_allows_is_called_with_the_tenants_key(
    cluster: Cluster, settings: Callable, gateway: Running, ask: Callable, upstream: Provider
) -> None:
    """A host on the platform's list is called although it is not public, and with the tenant's key."""
    catalog = settings().catalog_file
    catalog.write_text(catalog.read_text().replace("allowHosts: []", "allowHosts: [localhost]"))
    changed = policy(NAMESPACE, [])
    changed.assistants["mine"] = own_endpoint(upstream.url.replace("127.0.0.1", "localhost"), key="tenant-key-1")
    cluster.put_policy(changed)
    _, headers, _ = await once_known(ask, "mine", until=200)
    assert upstream.headers[-1]["Authorization"] == "Bearer tenant-key-1"
    assert headers["x-assistant-model"] == "endpoint/good"


async def test_many_streams_at_once_lose_and_mix_nothing(ask: Callable) -> None:
    """A hundred streams at once each get their own words, all of them, in order."""

    async def one() -> list:
        async with ask(NAMESPACE, "good", stream=True) as answer:
            return events(await answer.text())

    for found in await asyncio.gather(*(one() for _ in range(100))):
        assert text_of(found) == "".join(WORDS)
        assert found[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/responses", 404),
        ("PROPFIND", "/v1/models", 405),
    ],
)
async def test_unknown_address_or_method_is_an_error_in_the_envelope(
    method: str, path: str, status: int, gateway: Running
) -> None:
    """Whatever is asked, the answer is an envelope with an id, and the metric's labels stay few."""
    async with gateway.client.request(method, gateway.url + path) as answer:
        error = (await answer.json())["error"]
    assert answer.status == status
    assert error["code"]
    assert answer.headers["x-request-id"]
    known = metrics.method_label(method)
    assert await gateway.metric(line_of(known, status)) >= 1


def line_of(method: str, status: int) -> str:
    """Return the name of the time series of requests that matched no route."""
    labels = f'method="{method}",part="gateway",route="unknown",status="{status}"'
    return f"assistant_http_requests_total{{{labels}}}"


async def test_connections_to_the_provider_are_used_again(ask: Callable, upstream: Provider) -> None:
    """Calls one after the other, streamed or not, share one connection."""
    for number in range(10):
        async with ask(NAMESPACE, "good", stream=number % 2 == 0) as answer:
            await answer.read()
    assert len(upstream.peers) == 1


async def test_gateway_that_has_not_loaded_anything_says_so(
    settings: Callable, cluster: Cluster, gateway: Running
) -> None:
    """Before keys and policies are there a request is a 503, not a 401 that would make a client doubt its token."""
    server = Server(settings(kubernetes_url="https://127.0.0.1:9"))
    await server.start()
    headers = {"Authorization": f"Bearer {cluster.token(NAMESPACE)}"}
    async with gateway.client.get(f"http://127.0.0.1:{server.port}/v1/models", headers=headers) as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["code"] == "not_ready"
    async with gateway.client.get(f"http://127.0.0.1:{server.metrics_port}/readyz") as answer:
        checks = (await answer.json())["checks"]
    assert (answer.status, checks["signing_keys"], checks["policies"]) == (503, "not loaded", "not loaded")
    await server.stop(drain_seconds=0)
