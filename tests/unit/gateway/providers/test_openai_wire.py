"""A provider's refusal, translated."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from assistant_gateway.catalog import Provider, target
from assistant_gateway.egress import GuardedResolver
from assistant_gateway.errors import GatewayError
from assistant_gateway.providers.openai_wire import Detail, Upstream, error_detail, translate

PLATFORM = target("openai", Provider(url="https://api.openai.com/v1"), "sk-0123456789")
OWN = target("endpoint", Provider(url="https://llm.acme.example/v1"), "sk-0123456789", own=True)


@pytest.mark.parametrize(
    ("status", "mapped", "code"),
    [
        (400, 400, "context_length_exceeded"),
        (401, 502, "provider_unauthorized"),
        (402, 400, "context_length_exceeded"),
        (403, 502, "provider_unauthorized"),
        (404, 502, "provider_model_not_found"),
        (408, 504, "provider_timeout"),
        (413, 413, "context_length_exceeded"),
        (422, 422, "context_length_exceeded"),
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
    async with server([None], [None], [GOOD]) as (url, seen):
        with pytest.raises(GatewayError) as raised:
            await ask(upstream, url)
    assert (raised.value.status, raised.value.code) == (502, "provider_unreachable")
    assert seen == [1, 1]


async def test_answer_that_is_not_http_is_an_error_of_the_provider(upstream: Upstream) -> None:
    """Garbage instead of a head is a 502, and is not asked for again."""
    async with server([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], [GOOD]) as (url, seen):
        with pytest.raises(GatewayError) as raised:
            await ask(upstream, url)
    assert (raised.value.status, raised.value.code) == (502, "provider_error")
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
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "both.pem").write_bytes(plain + certificate.public_bytes(pem))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "both.pem")
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
