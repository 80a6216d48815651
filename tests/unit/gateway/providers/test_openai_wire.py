"""A provider's refusal, translated."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator
from email.utils import format_datetime
from pathlib import Path

import pytest

from assistant_cluster.certificates import Authority
from assistant_gateway.errors import GatewayError
from assistant_gateway.providers.catalog import Provider, target
from assistant_gateway.providers.egress import GuardedResolver
from assistant_gateway.providers.openai_wire import Detail, Upstream, error_detail, hidden, translate

PLATFORM = target("openai", Provider(url="https://api.openai.com/v1"), "sk-0123456789")
OWN = target("endpoint", Provider(url="https://llm.acme.example/v1"), "sk-0123456789", own=True)


@pytest.mark.parametrize(
    ("status", "mapped", "code"),
    [
        (400, 400, "context_length_exceeded"),
        (401, 502, "provider_unauthorized"),
        (402, 503, "provider_quota_exhausted"),
        (403, 502, "provider_unauthorized"),
        (404, 502, "provider_model_not_found"),
        (408, 504, "provider_timeout"),
        (413, 400, "context_length_exceeded"),
        (422, 400, "context_length_exceeded"),
        (429, 429, "provider_rate_limit_exceeded"),
        (302, 502, "provider_error"),
        (500, 502, "provider_error"),
        (504, 504, "provider_timeout"),
        (529, 502, "provider_error"),
    ],
)
def test_status_is_translated(status: int, mapped: int, code: str) -> None:
    """A client hears what it can act on; a fault between gateway and provider is never the client's 401 or 404."""
    error = translate(PLATFORM, status, Detail("no", "messages", "context_length_exceeded"), None)
    assert (error.status, error.code) == (mapped, code)


def test_refused_key_is_said_to_whom_it_belongs() -> None:
    """The tenant is sent to its own Secret or to the platform team, and no key is quoted."""
    own, platform = (translate(to, 401, Detail("key sk-0123 is bad"), None) for to in (OWN, PLATFORM))
    assert "apiKeySecretRef" in own.message
    assert "platform team" in platform.message
    assert "sk-0123" not in own.message + platform.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "a", "param": "p", "code": "c"}}, "a"),
        ({"error": "b"}, "b"),
        ({"message": "c"}, "c"),
        ({"error": {"message": {"deep": 1}}}, {"deep": 1}),
    ],
)
def test_error_is_found_in_every_shape(body: dict, message: object) -> None:
    """Providers wrap their errors in different ways."""
    detail = error_detail(PLATFORM, json.dumps(body).encode())
    assert detail is not None
    assert detail.message == message
    assert "None" not in translate(PLATFORM, 500, detail, None).message


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"3", b'{"detail": []}', b"\xff"])
def test_no_error_in_the_body_is_no_problem(body: bytes) -> None:
    """What is not understood is left out: the status says enough."""
    assert error_detail(PLATFORM, body) is None


def test_key_in_an_error_is_blanked() -> None:
    """A provider that repeats the key in its words is not quoted with it."""
    detail = error_detail(PLATFORM, b'{"error": {"message": "bad key sk-0123456789 here"}}')
    assert detail is not None
    assert detail.message == "bad key *** here"


def test_long_words_are_cut() -> None:
    """A provider cannot fill the client's logs."""
    assert len(translate(PLATFORM, 500, Detail("x" * 100_000), None).message) < 1200


@contextlib.asynccontextmanager
async def server(*connections: list[bytes | None]) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve each connection its own script: the answers to its requests, None for hanging up instead of an answer."""
    seen: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(seen)
        seen.append(0)
        for answer in connections[number]:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            seen[number] += 1
            if answer is None:
                break
            writer.write(answer)
        else:
            await reader.read()  # stays open until the client closes
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", seen
    finally:
        listening.close()


GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Connections that are closed at the end."""
    made = Upstream(GuardedResolver(list))
    yield made
    await made.close()


async def ask(upstream: Upstream, url: str, **settings: float) -> bytes:
    """Send one request and read its answer."""
    to = target("demo", Provider(url=url, **settings), None)
    response = await upstream.post(to, to.chat, b"{}", {})
    body = await response.read()
    response.close()
    return body


async def test_connection_is_used_again(upstream: Upstream) -> None:
    """Calls one after the other share a connection."""
    async with server([GOOD, GOOD, GOOD]) as (url, seen):
        for _ in range(3):
            assert await ask(upstream, url) == b"{}"
    assert seen == [3]


async def test_pooled_connection_that_was_just_closed_costs_nobody_an_error(upstream: Upstream) -> None:
    """A provider that hangs up an idle connection in the moment it is used is asked again, once, on a new one."""
    async with server([GOOD, None], [GOOD]) as (url, seen):
        assert await ask(upstream, url) == b"{}"
        assert await ask(upstream, url) == b"{}"
    assert seen == [2, 1]


async def test_provider_that_keeps_hanging_up_is_asked_twice_at_most(upstream: Upstream) -> None:
    """A second hang-up is an answer."""
    async with server([GOOD, None], [None], [GOOD]) as (url, seen):
        await ask(upstream, url)
        with pytest.raises(GatewayError) as raised:
            await ask(upstream, url)
    assert (raised.value.status, raised.value.code) == (502, "provider_unreachable")
    assert seen == [2, 1]


async def test_request_that_arrived_is_not_sent_again(upstream: Upstream) -> None:
    """On a connection of its own a request has been seen, whatever became of it: a second one might be paid twice."""
    async with server([None], [GOOD]) as (url, seen):
        with pytest.raises(GatewayError) as raised:
            await ask(upstream, url)
    assert not raised.value.unsent
    assert raised.value.billed, "the provider may have worked before whatever stands before it hung up"
    assert seen == [1]


@pytest.mark.parametrize(
    ("status", "body", "mapped", "code"),
    [
        # too long: OpenAI and Azure, vLLM before and now, Ollama, llama.cpp, Groq, Mistral, OpenRouter, Anthropic
        (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, 400, "context_length_exceeded"),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 8 tokens.", "code": 400},
            400,
            "context_length_exceeded",
        ),
        (
            400,
            {"error": {"message": "This model's maximum context length is 8 tokens.", "code": 400, "param": None}},
            400,
            "context_length_exceeded",
        ),
        (400, {"error": "the input length exceeds the context length"}, 400, "context_length_exceeded"),
        (
            400,
            {"error": {"code": 400, "message": "x", "type": "exceed_context_size_error"}},
            400,
            "context_length_exceeded",
        ),
        (
            400,
            {"error": {"message": "Please reduce the length of the messages or completion.", "type": "x"}},
            400,
            "context_length_exceeded",
        ),
        (
            400,
            {"object": "error", "message": "Prompt is too large for model with 32768 maximum", "code": "3051"},
            400,
            "context_length_exceeded",
        ),
        (
            400,
            {"error": {"code": 400, "message": "This endpoint's maximum context length is 8 tokens."}},
            400,
            "context_length_exceeded",
        ),
        (400, {"error": {"message": "prompt is too long: 9 tokens > 8"}}, 400, "context_length_exceeded"),
        (
            413,
            {"error": {"message": "Request too large for model `m`", "type": "tokens", "code": "rate_limit_exceeded"}},
            429,
            "provider_rate_limit_exceeded",
        ),
        # filtered: OpenAI, Azure, OpenRouter
        (400, {"error": {"message": "x", "code": "content_policy_violation"}}, 400, "content_filter"),
        (
            400,
            {"error": {"message": "filtered", "code": "content_filter", "innererror": {}, "param": "prompt"}},
            400,
            "content_filter",
        ),
        (
            403,
            {"error": {"code": 403, "message": "needs moderation", "metadata": {"reasons": ["x"]}}},
            400,
            "content_filter",
        ),
        (
            400,
            {"error": {"message": "Invalid prompt: your prompt was flagged as potentially violating our usage policy"}},
            400,
            "content_filter",
        ),
        # the platform's account is empty: OpenAI, OpenRouter, DeepSeek, Anthropic
        (
            429,
            {"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}},
            503,
            "provider_quota_exhausted",
        ),
        (402, {"error": {"code": 402, "message": "Insufficient credits"}}, 503, "provider_quota_exhausted"),
        (402, {"error": {"message": "Insufficient Balance"}}, 503, "provider_quota_exhausted"),
        (400, {"error": {"message": "Your credit balance is too low"}}, 503, "provider_quota_exhausted"),
        # and what is none of these
        (400, {"error": {"message": "x", "code": "tool_use_failed"}}, 400, "tool_use_failed"),
        (401, {"error": {"message": "no content policy"}}, 502, "provider_unauthorized"),
        (403, {"error": {"message": "Country not supported"}}, 502, "provider_unauthorized"),
        (500, {"error": {"message": "maximum context length"}}, 502, "provider_error"),
        (
            429,
            {"error": {"message": "Rate limit reached for gpt-4o", "code": "rate_limit_exceeded"}},
            429,
            "provider_rate_limit_exceeded",
        ),
    ],
)
def test_refusals_that_clients_tell_apart_have_openais_codes(status: int, body: dict, mapped: int, code: str) -> None:
    """Too long, filtered, or the platform's account is empty: one code each, in whatever shape a provider says it."""
    detail = error_detail(PLATFORM, json.dumps(body).encode())
    assert detail is not None
    error = translate(PLATFORM, status, detail, None)
    assert (error.status, error.code) == (mapped, code)


def test_empty_account_is_said_to_whom_it_belongs() -> None:
    """The tenant's own account or the platform's: never the tenant's limits here, and not to be asked again soon."""
    detail = Detail("x", code="insufficient_quota")
    own, platform = (translate(to, 429, detail, "20") for to in (OWN, PLATFORM))
    assert "own endpoint" in own.message
    assert "platform team" in platform.message
    assert "retry-after" not in platform.headers


def test_refused_field_of_a_server_that_speaks_fastapi_is_named() -> None:
    """vLLM's and Mistral's 422 carry a list; the first entry says where."""
    body = {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Input should be 'user'", "type": "enum"}]}
    detail = error_detail(PLATFORM, json.dumps(body).encode())
    assert detail is not None
    error = translate(PLATFORM, 422, detail, None)
    assert (error.status, error.param) == (422, "messages.0.role")
    assert "Input should be 'user'" in error.message


def test_status_inside_an_answer_counts() -> None:
    """A provider that answers 200 and puts its 429 into the body is limiting all the same."""
    assert hidden(PLATFORM, Detail("slow down", code=429)).code == "provider_rate_limit_exceeded"
    assert hidden(PLATFORM, Detail("no capacity", code=True)).code == "provider_error"


def test_pauses_are_read_in_both_forms() -> None:
    """`Retry-After` is a number of seconds or a date; anything else says nothing."""
    later = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100), usegmt=True)
    found = [translate(PLATFORM, 429, Detail(), said).retry_after for said in ("7", "0.5", later, "soon", "inf", None)]
    assert found[:2] == [7, 0.5]
    assert found[2] is not None
    assert 90 < found[2] <= 100
    assert found[3:] == [None, None, None]


async def test_answer_that_is_not_http_is_an_error_of_the_provider(upstream: Upstream) -> None:
    """Garbage instead of a head is a 502, and is not asked for again."""
    async with server([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], [GOOD]) as (url, seen):
        with pytest.raises(GatewayError) as raised:
            await ask(upstream, url)
    assert (raised.value.status, raised.value.code) == (502, "provider_error")
    assert raised.value.billed
    assert seen == [1]


async def test_head_that_does_not_come_is_a_timeout(upstream: Upstream) -> None:
    """A provider that accepts and says nothing is given up on in time, and not asked again."""
    async with server([b""], [GOOD]) as (url, seen):
        with pytest.raises(GatewayError) as raised:
            await ask(upstream, url, connect_seconds=0.1, first_byte_seconds=0.1)
    assert (raised.value.status, raised.value.code) == (504, "provider_timeout")
    assert seen == [1]


class SlowResolver(GuardedResolver):
    """Name servers that take their time."""

    async def resolve(self, *_arguments: object, **_named: object) -> list:
        """Never answer."""
        await asyncio.sleep(60)
        return []


async def test_name_that_does_not_resolve_in_time_is_a_timeout() -> None:
    """The time to connect includes the look-up of the name."""
    upstream = Upstream(SlowResolver(list))
    to = target("endpoint", Provider(url="http://llm.acme.example/v1", connect_seconds=0.1), None, own=True)
    with pytest.raises(GatewayError) as raised:
        await upstream.post(to, to.chat, b"{}", {})
    assert (raised.value.status, raised.value.code) == (504, "provider_timeout")
    await upstream.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "①②⑦.⓪.⓪.①", "[::1]", "localhost", "LOCALHOST"])
async def test_own_endpoint_reaches_nothing_inside(host: str, upstream: Upstream) -> None:
    """However the loopback address is written, a tenant's endpoint does not get there."""
    to = target("endpoint", Provider(url=f"http://{host}:9/v1"), "sk-0123456789", own=True)
    with pytest.raises(GatewayError) as raised:
        await upstream.post(to, to.chat, b"{}", {})
    assert (raised.value.status, raised.value.code) == (502, "provider_unreachable")
    assert "refused the connection" not in raised.value.message
    assert "sk-" not in raised.value.message


async def test_certificate_that_nobody_trusts_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    """A provider with a certificate of its own making is not given the key."""
    files = Authority(tmp_path).server("provider", ["localhost"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)
    heard = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(10))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    with pytest.raises(GatewayError) as raised:
        await ask(upstream, f"https://localhost:{listening.sockets[0].getsockname()[1]}/v1")
    listening.close()
    assert raised.value.code == "provider_unreachable"
    assert "TLS" in raised.value.message
    assert not any(heard)


LEAKS = [
    "Rate limit reached for gpt-4o in organization org-Ab3dEf6hIj on tokens per min (TPM): Limit 30000, Used 29000.",
    "Project `proj_Ab3dEf6hIjKl` does not have access to model `gpt-9`",
    "You exceeded quota for arn:aws:bedrock:us-east-1:123456789012:inference-profile/x",
    "Quota exceeded for project_number:123456789012 and consumer 'projects/845123456789'",
    "Incorrect key sk-proj-****abcd, write to billing@platform.example",
    "workspace 5f0c8d1e-1111-2222-3333-444455556666 is over its limit",
]


@pytest.mark.parametrize("said", LEAKS)
@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500, 503])
def test_the_platforms_account_is_not_named_to_tenants(status: int, said: str) -> None:
    """Who the platform is at a provider, and how much it may use, is in the gateway's log only."""
    detail = Detail(said)
    error = translate(PLATFORM, status, detail, "7")
    for secret in ("org-Ab3", "proj_Ab3", "123456789012", "845123456789", "sk-proj", "billing@", "5f0c8d1e"):
        assert secret not in error.message
    assert error.said == said.rstrip(".")
    if status == 429:
        assert "30000" not in error.message
        assert error.headers["retry-after"] == "7"
    own = target("endpoint", Provider(url="https://x.example/v1"), None, own=True)
    assert said.rstrip(".") in translate(own, 429, detail, None).message
