"""The API as a process: callers who hang up, configuration that changes, a stop in the middle of a stream."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from api_gateway import FakeGateway
from api_process import KEY, ApiProcess, api_process, assistant, document

AUTHORIZATION = {"authorization": f"Bearer {KEY}"}
CHAT = "/v1/chat/completions"


def ask(question: str, *, stream: bool = False, model: str = "plain") -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": question}], "stream": stream}


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    """Wait until the condition holds; return the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not come true"
        time.sleep(0.01)
    return time.monotonic() - started


@pytest.fixture
def client(api: ApiProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, headers=AUTHORIZATION, timeout=10) as client:
        yield client


@pytest.mark.parametrize(("question", "stream"), [("hang", False), ("hang", True), ("endless", True)])
def test_a_caller_who_hangs_up_frees_the_gateway_within_a_second(
    api: ApiProcess, gateway: FakeGateway, question: str, *, stream: bool
) -> None:
    """Before the first byte and after it, streamed or not."""
    before = gateway.open_calls
    with httpx.Client(base_url=api.url, headers=AUTHORIZATION, timeout=0.5) as client:
        if question == "endless":
            with client.stream("POST", CHAT, json=ask(question, stream=True)) as answer:
                lines = answer.iter_lines()  # kept: the response would be closed along with a forgotten iterator
                next(lines)
                assert gateway.open_calls == before + 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(CHAT, json=ask(question, stream=stream))
    assert eventually(lambda: gateway.open_calls == before) < 1.0


def test_a_caller_who_hangs_up_while_sending_harms_nobody(api: ApiProcess, client: httpx.Client) -> None:
    """Half a request is forgotten; no error is logged for it."""
    port = int(api.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 1000\r\n\r\n{{"
        connection.sendall(head.encode())
        time.sleep(0.1)
    assert client.post(CHAT, json=ask("Hello")).status_code == 200
    assert "Traceback" not in api.log()


def test_changed_instructions_are_served_while_a_stream_runs_on(
    gateway: FakeGateway, api: ApiProcess, client: httpx.Client
) -> None:
    """Within two seconds, without a restart, without a dropped stream; /readyz names the new generation."""
    with client.stream("POST", CHAT, json=ask("endless", stream=True)) as running:
        events = running.iter_lines()
        next(events)
        config = document(gateway.url, [assistant("plain", instructions="Speak Latin."), assistant("support")])
        changed = time.monotonic()
        api.configure(config)
        took = eventually(lambda: client.get("/readyz").json()["configGeneration"] == config.generation)
        assert took < 1.0
        client.post(CHAT, json=ask("Hello"))
        assert gateway.chats[-1]["messages"][0]["content"] == "Speak Latin."
        assert time.monotonic() - changed < 2.0
        assert [next(events) for _ in range(10)]


def test_a_broken_configuration_is_reported_and_the_former_served(
    gateway: FakeGateway, api: ApiProcess, client: httpx.Client
) -> None:
    """And mended by the next good one."""
    good = document(gateway.url, [assistant("plain"), assistant("support")])
    api.configure(good)
    eventually(lambda: client.get("/readyz").json()["configGeneration"] == good.generation)
    (api.folder / "tenant.json").write_text('{"tenant": ')
    eventually(lambda: client.get("/readyz").json()["checks"]["configuration"] != "ok")
    assert client.get("/readyz").status_code == 200
    assert client.post(CHAT, json=ask("Hello")).status_code == 200
    api.configure(good)
    eventually(lambda: client.get("/readyz").json()["checks"]["configuration"] == "ok")


def test_metrics_are_on_a_port_of_their_own(api: ApiProcess, client: httpx.Client) -> None:
    """With the routes that were asked and the time to the first token."""
    client.post(CHAT, json=ask("Hello", stream=True))
    metrics = httpx.get(f"{api.metrics_url}/metrics").text
    assert (
        'assistant_http_requests_total{method="POST",part="api",route="/v1/chat/completions",status="200"}' in metrics
    )
    assert 'assistant_time_to_first_token_seconds_count{assistant="plain"}' in metrics
    assert client.get("/metrics").status_code == 404
    for foreign in ("assistant_operator_", "assistant_ledger_", "assistant_model_", "assistant_documents"):
        assert foreign not in metrics


def test_neither_key_nor_token_nor_question_is_logged(api: ApiProcess, client: httpx.Client) -> None:
    """Logs are read by people who may not read conversations."""
    client.post(CHAT, json=ask("my secret is swordfish"))
    client.post(CHAT, json=ask("rate_limit_exceeded"))
    assert "swordfish" not in api.log()
    assert KEY not in api.log()
    assert "test-token" not in api.log()


def test_it_stops_when_its_streams_have_ended(gateway: FakeGateway, tmp_path: Path) -> None:
    """SIGTERM: not ready at once, the running answer complete, then a clean exit."""
    config = document(gateway.url, [assistant("plain")])
    with api_process(tmp_path / "pod", config, drain_seconds="0.5") as api:
        api.wait_ready()
        client = httpx.Client(base_url=api.url, headers=AUTHORIZATION, timeout=10)
        with client, client.stream("POST", CHAT, json=ask("word " * 200, stream=True)) as running:
            events = running.iter_lines()
            next(events)
            api.process.send_signal(signal.SIGTERM)
            eventually(lambda: client.get("/readyz").status_code == 503, 0.4)
            lines = list(events)
        assert "data: [DONE]" in lines
        assert api.process.wait(5) == 0
        assert "Traceback" not in api.log()


def test_a_stream_without_end_does_not_keep_it_from_stopping(gateway: FakeGateway, tmp_path: Path) -> None:
    """After the time for shutting down, what still runs is ended."""
    before = gateway.open_calls
    config = document(gateway.url, [assistant("plain")])
    with (
        api_process(tmp_path / "pod", config, shutdown_seconds="1") as api,
        ThreadPoolExecutor() as threads,
        httpx.Client(base_url=api.url, headers=AUTHORIZATION, timeout=10) as client,
    ):
        api.wait_ready()
        whole = threads.submit(client.post, CHAT, json=ask("hang"))
        eventually(lambda: gateway.open_calls == before + 1)
        with client.stream("POST", CHAT, json=ask("endless", stream=True)) as running:
            lines = running.iter_lines()
            next(lines)
            api.process.send_signal(signal.SIGTERM)
            # In order: an error that says so, and the end of the body; httpx raises where the latter is missing.
            events = [line for line in lines if line]
            assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "stream_interrupted"
            assert whole.result(5).status_code == 503
            assert whole.result().json()["error"]["code"] == "shutting_down"
            assert "retry-after" in whole.result().headers
        assert api.process.wait(5) == 0
        assert "Traceback" not in api.log()
        assert "Cancel " not in api.log()
    eventually(lambda: gateway.open_calls == before, 2)


def noted(api: ApiProcess, request_id: str) -> list[dict[str, object]]:
    """The lines of the log that end a request with this id."""
    lines = [json.loads(line) for line in api.log().splitlines()]
    return [line for line in lines if line["event"] == "request" and line["request_id"] == request_id]


@pytest.mark.parametrize(
    ("name", "status", "code", "known"),
    [
        ("whole", 200, None, {"assistant": "plain", "key": "first", "output_tokens": 3}),
        ("stream", 200, None, {"assistant": "plain", "key": "first"}),
        ("cut", 200, "stream_interrupted", {"assistant": "plain", "key": "first"}),
        ("bad", 400, "invalid_field", {"key": "first"}),
        ("stranger", 401, "invalid_api_key", {}),
        ("refused", 403, "price_unknown", {"assistant": "plain", "key": "first"}),
        ("absent", 404, "model_not_found", {"key": "first"}),
        ("nowhere", 404, "not_found", {}),
        ("large", 413, "request_too_large", {"key": "first"}),
        ("limited", 429, "rate_limit_exceeded", {"assistant": "plain", "key": "first"}),
        ("unavailable", 503, "limits_unavailable", {"assistant": "plain", "key": "first"}),
        ("list", 200, None, {"key": "first"}),
    ],
)
def test_whatever_became_of_a_request_its_id_is_in_one_line_of_the_log(
    api: ApiProcess, client: httpx.Client, name: str, status: int, code: str | None, known: dict[str, object]
) -> None:
    """With the trace, the tenant, who asked what, the status, the code and the time; nothing of what was said."""
    questions = {"refused": "price_unknown", "limited": "rate_limit_exceeded", "unavailable": "limits_unavailable"}
    body: dict[str, object] = ask(
        questions.get(name, "cut" if name == "cut" else "Hello"), stream=name in {"stream", "cut"}
    )
    changed = {"bad": {"temperature": 7}, "absent": {"model": "nobody"}, "large": {"x": "y" * (1 << 20)}}
    headers = {"x-request-id": f"id-{name}"} | ({"authorization": "Bearer no"} if name == "stranger" else {})
    if name in {"nowhere", "list"}:
        answer = client.get("/nowhere" if name == "nowhere" else "/v1/models", headers=headers)
    else:
        answer = client.post(CHAT, json=body | changed.get(name, {}), headers=headers)
    assert answer.status_code == status
    eventually(lambda: bool(noted(api, f"id-{name}")))
    (line,) = noted(api, f"id-{name}")
    assert line["status"] == status
    assert line.get("code") == code
    assert line["tenant"] == "acme"
    assert len(str(line["trace_id"])) == 32
    assert float(str(line["ms"])) >= 0
    assert line["service"] == "assistant-api"
    assert {key: line.get(key) for key in ("assistant", "key", "output_tokens") if key in known} == known


def test_a_caller_who_hung_up_has_a_line_too(api: ApiProcess, gateway: FakeGateway) -> None:
    """Before the first byte, and in the middle of a stream."""
    with httpx.Client(base_url=api.url, headers=AUTHORIZATION, timeout=0.5) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=ask("hang"), headers={"x-request-id": "id-gone"})
        with client.stream(
            "POST", CHAT, json=ask("endless", stream=True), headers={"x-request-id": "id-left"}
        ) as answer:
            next(answer.iter_lines())
    for name, status in (("id-gone", 499), ("id-left", 200)):
        eventually(lambda name=name: bool(noted(api, name)))  # type: ignore[misc]
        (line,) = noted(api, name)
        assert (line["status"], line["code"]) == (status, "client_disconnected")


def test_what_is_not_http_writes_no_line(api: ApiProcess, client: httpx.Client) -> None:
    """Anybody could fill the log otherwise."""
    port = int(api.url.rsplit(":", 1)[1])
    before = len(api.log().splitlines())
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
            connection.recv(1000)
    client.get("/v1/models", headers={"x-request-id": "id-after"})
    eventually(lambda: bool(noted(api, "id-after")))
    assert len(api.log().splitlines()) == before + 1


def test_it_waits_for_a_configuration_and_for_the_gateway(gateway: FakeGateway, tmp_path: Path) -> None:
    """A pod that starts before either is not ready, says why, and becomes ready by itself."""
    with api_process(tmp_path / "pod", None) as api:
        eventually(lambda: "Uvicorn running" in api.log(), 20)
        waiting = httpx.get(f"{api.url}/readyz")
        assert waiting.status_code == 503
        assert "cannot be read" in waiting.json()["checks"]["configuration"]
        assert httpx.get(f"{api.url}/livez").status_code == 200
        api.configure(document("http://127.0.0.1:1", [assistant("plain")]))
        eventually(lambda: httpx.get(f"{api.url}/readyz").json()["checks"].get("gateway") == "unreachable")
        api.configure(document(gateway.url, [assistant("plain")]))
        api.wait_ready()


def test_a_token_that_the_gateway_refuses_keeps_it_from_being_ready(gateway: FakeGateway, tmp_path: Path) -> None:
    """A rollout with a wrong identity replaces no working pod; callers are not told that their key is wrong."""
    with api_process(tmp_path / "pod", document(gateway.url, [assistant("plain")])) as api:
        (tmp_path / "pod" / "token").write_text("of somebody else")
        eventually(lambda: "Uvicorn running" in api.log(), 20)
        eventually(lambda: httpx.get(f"{api.url}/readyz").json()["checks"].get("gateway") == "refused")
        answer = httpx.post(f"{api.url}{CHAT}", json=ask("Hello"), headers=AUTHORIZATION)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "gateway_refused"
        (tmp_path / "pod" / "token").write_text("test-token")
        api.wait_ready()
