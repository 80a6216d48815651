"""Calls to a provider that speaks the OpenAI wire, and the translation of everything that can go wrong.

Nothing here decodes a good answer: its bytes belong to the caller. Redirects are not followed, cookies not kept,
proxies of the environment not used: a call goes to the address that was configured, or nowhere.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import aiohttp
import msgspec
from aiohttp import ClientResponse, ClientTimeout
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from assistant_gateway import errors
from assistant_gateway.catalog import Target
from assistant_gateway.egress import EgressRefusedError, GuardedResolver
from assistant_observability import metrics

CONNECTIONS_PER_PROVIDER = 1000
KEEP_ALIVE_SECONDS = 30.0
LARGEST_ERROR = 64 * 1024
ERROR_BODY_SECONDS = 5.0
LONGEST_MESSAGE = 1000

_fresh: ContextVar[bool] = ContextVar("fresh", default=True)  # whether this request opened its connection itself

# Where a code does not say it, words do: vLLM, Mistral, OpenRouter, Ollama and llama.cpp have none for these.
_TOO_LONG_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "exceed_context_size_error", "3051"})
_TOO_LONG = re.compile(
    r"maximum context length|context length exceeded|exceeds? the (available |maximum |model's )?context"
    r"|context window|prompt is too long|too large for model with \d+|maximum model length"
    r"|reduce the length of the (messages|prompt|input)",
    re.IGNORECASE,
)
_FILTERED_CODES = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
_FILTERED = re.compile(
    r"content management policy|input was flagged|flagged as potentially violating|content (policy|filter)",
    re.IGNORECASE,
)
_QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"}
)
_QUOTA = re.compile(r"insufficient (credits|balance|funds)|credit balance is too low|out of call volume", re.IGNORECASE)
_REFUSED = frozenset({400, 403, 413, 422})


class Detail(msgspec.Struct, frozen=True):
    """What a provider says of its own error; any JSON may be in there."""

    message: object = None
    param: object = None
    code: object = None
    kind: object = None  # OpenAI's `type`
    flagged: bool = False  # by OpenRouter's moderation

    @property
    def words(self) -> frozenset[str]:
        """Its code and type, in lower case."""
        return frozenset(str(word).lower() for word in (self.code, self.kind) if isinstance(word, str | int))


class Upstream:
    """The connections to providers: one pool per host, and a guarded resolver for tenants' own endpoints."""

    def __init__(self, resolver: GuardedResolver) -> None:
        self._resolver = resolver
        self._platform = _session(None)
        self._guarded = _session(resolver)

    async def close(self) -> None:
        """Close all connections."""
        await self._platform.close()
        await self._guarded.close()
        await self._resolver.close()

    async def post(self, target: Target, url: URL, body: bytes, trace: Mapping[str, str]) -> ClientResponse:
        """Send a request and return the answer when its head is here, whatever its status; the caller closes it.

        Raises:
            GatewayError: no answer: 502 or 504.
        """
        started = asyncio.get_running_loop().time()
        _fresh.set(False)
        try:
            return await self._send("POST", target, url, body, trace)
        except (aiohttp.ClientError, ConnectionError) as error:
            # A pooled connection that the provider closed in the same moment: it has not seen the request.
            soon = asyncio.get_running_loop().time() - started < 0.5
            if _fresh.get() or not (soon and _is_stale_connection(error)):
                raise _failed(target, error) from None
        metrics.PROVIDER_RETRIES.labels(target.provider, "stale_connection").inc()
        try:
            return await self._send("POST", target, url, body, trace)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _failed(target, error) from None

    async def get(self, target: Target, url: URL, seconds: float) -> ClientResponse:
        """Ask for a document, for probes.

        Raises:
            GatewayError: no answer: 502 or 504.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._send("GET", target, url, None, {})
        except TimeoutError:
            raise errors.provider_timeout(target.provider, f"did not answer within {seconds:g} s") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _failed(target, error) from None

    async def _send(
        self, method: str, target: Target, url: URL, body: bytes | None, trace: Mapping[str, str]
    ) -> ClientResponse:
        session = self._platform
        if target.own:
            session = self._guarded
            try:
                self._resolver.check_literal(url.raw_host or "")
            except EgressRefusedError as error:
                raise errors.provider_not_allowed(target.provider, str(error)) from None
        settings = target.settings
        headers = {**target.headers, **trace} if trace else target.headers
        try:
            async with asyncio.timeout(settings.connect_seconds + settings.first_byte_seconds):
                return await session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    timeout=ClientTimeout(total=None, connect=settings.connect_seconds),
                )
        except aiohttp.ConnectionTimeoutError:
            what = f"did not accept a connection within {settings.connect_seconds:g} s"
            raise errors.provider_timeout(target.provider, what) from None
        except TimeoutError:
            what = f"did not begin to answer within {settings.first_byte_seconds:g} s"
            raise errors.provider_timeout(target.provider, what).paid() from None


class _Connector(aiohttp.TCPConnector):
    """Notes when a request gets a new connection: one that breaks there was not closed while it lay in the pool."""

    async def _create_connection(self, *arguments: Any, **named: Any) -> ResponseHandler:
        _fresh.set(True)
        return await super()._create_connection(*arguments, **named)


def _session(resolver: GuardedResolver | None) -> aiohttp.ClientSession:
    connector = _Connector(
        limit=0,
        limit_per_host=CONNECTIONS_PER_PROVIDER,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        resolver=resolver,
        ttl_dns_cache=10,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
        read_bufsize=2**18,
        trust_env=False,
    )


def _is_stale_connection(error: Exception) -> bool:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return True
    return isinstance(error, OSError) and error.errno in {errno.ECONNRESET, errno.EPIPE}


def _failed(target: Target, error: Exception) -> errors.GatewayError:
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, EgressRefusedError):
            return errors.provider_not_allowed(target.provider, str(error.os_error))
        why = _why(error, error.host if target.own else "its host")
        lasting = isinstance(error, aiohttp.ClientSSLError)
        return errors.provider_unreachable(target.provider, why, unsent=not lasting)
    if isinstance(error, aiohttp.ClientResponseError):
        return errors.provider_error(target.provider, "did not answer in HTTP")
    if isinstance(error, aiohttp.InvalidURL):
        return errors.provider_unreachable(target.provider, "its URL cannot be used")
    return errors.provider_unreachable(target.provider, "it closed the connection without an answer")


def _why(error: aiohttp.ClientConnectorError, host: str) -> str:
    """Return a reason that people can act on; where the platform's providers are is not the tenant's business."""
    if isinstance(error, aiohttp.ClientSSLError):
        return f"no trusted TLS connection to {host}"
    cause = error.os_error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"{host} cannot be resolved"
    if isinstance(cause, ConnectionRefusedError):
        return f"{host} refused the connection"
    return f"no connection to {host}"


async def refusal(target: Target, response: ClientResponse) -> errors.GatewayError:
    """Return what to tell the client for an answer that is not a success; reads the answer's body, within bounds."""
    detail = await detail_of(target, response)
    return translate(target, response.status, detail or Detail(), response.headers.get("Retry-After"))


async def detail_of(target: Target, response: ClientResponse) -> Detail | None:
    """Return the error in an answer, None when there is none in its body."""
    body = b""
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < LARGEST_ERROR and (chunk := await response.content.readany()):
                body += chunk
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        pass
    return error_detail(target, body)


def error_detail(target: Target, body: bytes) -> Detail | None:
    """Return the error in an answer's body, in any of the shapes that providers use, without the key in it."""
    if target.secret is not None:
        body = body.replace(target.secret, b"***")
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return _found(document) if isinstance(document, dict) else None


def _found(document: dict[str, Any]) -> Detail | None:
    error = document.get("error")
    if isinstance(error, dict):
        return _detail(error)
    if isinstance(error, str):
        return Detail(error)
    if isinstance(document.get("message"), str):  # vLLM's former shape, Mistral's
        return _detail(document)
    if document.get("detail"):  # FastAPI's own refusals
        return _invalid(document["detail"])
    return None


def _detail(error: dict[str, Any]) -> Detail:
    metadata = error.get("metadata")
    flagged = isinstance(metadata, dict) and ("flagged_input" in metadata or "reasons" in metadata)
    return Detail(error.get("message"), error.get("param"), error.get("code"), error.get("type"), flagged)


def _invalid(found: object) -> Detail | None:
    if isinstance(found, str):
        return Detail(found)
    first = found[0] if isinstance(found, list) and found else None
    if not isinstance(first, dict):
        return None
    where = first.get("loc")
    param = ".".join(str(part) for part in where if part != "body") if isinstance(where, list) else None
    return Detail(first.get("msg"), param)


def hidden(target: Target, detail: Detail) -> errors.GatewayError:
    """Return what an error means that came inside an answer with status 200, as OpenRouter's do."""
    code = detail.code
    status = code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600 else 500
    return translate(target, status, detail, None)


def _known(target: Target, status: int, detail: Detail, said: str) -> errors.GatewayError | None:
    """Return the error for the refusals that clients tell apart, from any provider's way to say them."""
    words = detail.words
    param = detail.param if isinstance(detail.param, str) else None
    if status == 402 or (400 <= status < 500 and (words & _QUOTA_CODES or (status != 401 and _QUOTA.search(said)))):
        return errors.provider_quota_exhausted(target.provider, own=target.own)
    if status not in _REFUSED:
        return None
    if status != 403 and (words & _TOO_LONG_CODES or _TOO_LONG.search(said)):
        return errors.context_too_long(target.provider, said, param)
    if words & _FILTERED_CODES or detail.flagged or _FILTERED.search(said):
        return errors.content_filtered(target.provider, said, param)
    if status == 413 and "rate_limit_exceeded" in words:  # Groq: more tokens than fit into a minute
        return errors.provider_rate_limited(target.provider, said)
    return None


def translate(target: Target, status: int, detail: Detail, retry_after: str | None) -> errors.GatewayError:
    """Map a provider's refusal to what it means for the gateway's client."""
    provider = target.provider
    said = detail.message if isinstance(detail.message, str) else ""
    said = said[:LONGEST_MESSAGE].rstrip(".") or f"HTTP {status}"
    known = _known(target, status, detail, said)
    if known is not None:
        error = known
    elif status in {401, 403}:
        error = errors.provider_unauthorized(provider, own=target.own)
    elif status in {408, 504}:
        error = errors.provider_timeout(provider, "timed out")
    elif status == 429:
        error = errors.provider_rate_limited(provider, said)
    elif status == 404:
        why = f"does not know the model or the path: {said}"
        error = errors.provider_error(provider, why, code="provider_model_not_found")
    elif 400 <= status < 500:
        code = detail.code if isinstance(detail.code, str) else "provider_refused_request"
        param = detail.param if isinstance(detail.param, str) else None
        passed = status if status in {400, 409, 413, 415, 422} else 400
        error = errors.GatewayError(passed, code, f"Provider {provider} refused the request: {said}.", param=param)
    elif 300 <= status < 400:
        error = errors.provider_error(provider, "answered with a redirect, which is not followed")
    else:
        error = errors.provider_error(provider, f"failed: {said}")
    if retry_after and status in {429, 503} and error.code != "provider_quota_exhausted":
        error.headers["retry-after"] = retry_after
        error.again = True
    return error
