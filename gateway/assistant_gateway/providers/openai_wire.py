"""Calls to a provider that speaks the OpenAI wire, and the translation of everything that can go wrong.

Nothing here decodes a good answer: its bytes belong to the caller. Redirects are not followed, cookies not kept,
proxies of the environment not used: a call goes to the address that was configured, or nowhere.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import ssl
from collections.abc import Mapping

from yarl import URL

from assistant_gateway import errors
from assistant_gateway.providers import error_bodies, pauses
from assistant_gateway.providers.catalog import Target
from assistant_gateway.providers.egress import EgressRefusedError, GuardedResolver, PlatformResolver
from assistant_gateway.providers.error_bodies import LARGEST_ERROR, Detail
from assistant_http.addresses import Resolve
from assistant_http.client import HttpClient
from assistant_http.errors import (
    ConnectTimeoutError,
    HeadTimeoutError,
    HttpError,
    InvalidUrlError,
    NotConnectedError,
    NotHttpError,
    StaleConnectionError,
)
from assistant_http.response import Response
from assistant_observability import metrics

KEEP_ALIVE_SECONDS = 30.0
STALE_SECONDS = 0.5
ERROR_BODY_SECONDS = 5.0
LONGEST_MESSAGE = 1000

# Where a code does not say it, words do: vLLM, Mistral, OpenRouter, Ollama and llama.cpp have none for these.
_TOO_LONG_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "exceed_context_size_error", "3051"})
_TOO_LONG = re.compile(
    r"maximum context length|context length exceeded|exceeds? the (available |maximum |model's )?context"
    r"|context window|prompt is too long|too large for model with \d+|maximum model length"
    r"|(model is )?loaded with context length|reduce the length of the (messages|prompt|input)",
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
_ACCOUNT = re.compile(
    r"\b(org|proj|project|user|acct|account|team|ws|key)[-_][A-Za-z0-9_-]{6,}|\b(sk|rk|pk|gsk|xai|pplx)-[A-Za-z0-9*_-]{4,}"
    r"|\barn:aws[a-z-]*:\S+|\bprojects?[/ :=]+[A-Za-z0-9-]*[0-9]{5,}[A-Za-z0-9-]*|\b[0-9]{12}\b"
    r"|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|[\w.+-]+@[\w-]+\.[\w.]+"
)
_REFUSED = frozenset({400, 403, 413, 422})
# Of these the provider's words are not for tenants.
_WORDLESS = frozenset({"provider_unauthorized", "provider_quota_exhausted", "provider_rate_limit_exceeded"})
_NO_MODEL_CODES = frozenset(
    {"model_not_found", "invalid_model", "deploymentnotfound", "model_not_exist", "model_not_available"}
)
_NO_MODEL = re.compile(
    r"model\b.{0,100}?\b(does not exist|not exist|not found|is not available|is not supported)|not a valid model"
    r"|(invalid|unknown|no such) model|unknown model|deployment .{0,60}does not exist",
    re.IGNORECASE,
)
_BAD_KEY = re.compile(r"api[ _]key (not valid|expired|invalid)|invalid api (token|key)|API_KEY_INVALID", re.IGNORECASE)
# Providers' own statuses for "not now": Groq's for a tier without room, and those of servers behind others.
_NOT_NOW = frozenset({421, 424, 425, 498, 499})


class Upstream:
    """The connections to providers: those of tenants' own endpoints are made by a guarded resolver."""

    def __init__(self, resolver: GuardedResolver) -> None:
        self._resolver = resolver
        self._names = PlatformResolver()
        self._platform = _client(self._names.resolve)
        self._guarded = _client(resolver.resolve)

    async def close(self) -> None:
        """Close all connections."""
        await self._platform.close()
        await self._guarded.close()
        await self._resolver.close()
        await self._names.close()

    async def post(self, target: Target, url: URL, body: bytes, trace: Mapping[str, str]) -> Response:
        """Send a request and return the answer when its head is here, whatever its status; the caller closes it.

        Raises:
            GatewayError: no answer: 502 or 504.
        """
        started = asyncio.get_running_loop().time()
        try:
            return await self._send("POST", target, url, body, trace)
        except StaleConnectionError as error:
            # Closed by the provider in the same moment: it has not seen the request.
            if asyncio.get_running_loop().time() - started >= STALE_SECONDS:
                raise _failed(target, url, error) from None
        except HttpError as error:
            raise _failed(target, url, error) from None
        metrics.PROVIDER_RETRIES.labels(target.provider, "stale_connection").inc()
        try:
            return await self._send("POST", target, url, body, trace)
        except HttpError as error:
            raise _failed(target, url, error) from None

    async def get(self, target: Target, url: URL, seconds: float) -> Response:
        """Ask for a document, for probes.

        Raises:
            GatewayError: no answer: 502 or 504.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._send("GET", target, url, b"", {})
        except TimeoutError:
            raise errors.provider_timeout(target.provider, f"did not answer within {seconds:g} s") from None
        except HttpError as error:
            raise _failed(target, url, error) from None

    async def _send(self, method: str, target: Target, url: URL, body: bytes, trace: Mapping[str, str]) -> Response:
        client = self._platform
        if target.own:
            client = self._guarded
            try:
                self._resolver.check_literal(url.raw_host or "")
            except EgressRefusedError as error:
                raise errors.provider_not_allowed(target.provider, str(error)) from None
        settings = target.settings
        headers = {**target.headers, **trace} if trace else target.headers
        try:
            answer = await client.request(
                method,
                str(url),
                headers,
                body,
                connect_seconds=settings.connect_seconds,
                head_seconds=settings.first_byte_seconds,
            )
        except ConnectTimeoutError:
            what = f"did not accept a connection within {settings.connect_seconds:g} s"
            raise errors.provider_timeout(target.provider, what) from None
        except HeadTimeoutError:
            what = f"did not begin to answer within {settings.first_byte_seconds:g} s"
            raise errors.provider_timeout(target.provider, what).paid() from None
        coding = answer.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            answer.close()
            what = "answered in a content coding that it was not asked for"
            raise errors.provider_error(target.provider, what).paid()
        return answer


def _client(resolve: Resolve | None) -> HttpClient:
    # How many connections there may be is a matter of `concurrency`, and how long an answer may be silent of the relay.
    return HttpClient(
        connect_seconds=math.inf, idle_seconds=KEEP_ALIVE_SECONDS, quiet_seconds=math.inf, resolve=resolve
    )


def _failed(target: Target, url: URL, error: HttpError) -> errors.GatewayError:
    if isinstance(error, NotConnectedError):
        cause = error.__cause__
        if isinstance(cause, EgressRefusedError):
            return errors.provider_not_allowed(target.provider, str(cause))
        why = _why(cause, str(url.host) if target.own else "its host")
        lasting = isinstance(cause, ssl.SSLError)
        return errors.provider_unreachable(target.provider, why, unsent=not lasting)
    if isinstance(error, NotHttpError):
        return errors.provider_error(target.provider, "did not answer in HTTP").paid()
    if isinstance(error, InvalidUrlError):
        return errors.provider_unreachable(target.provider, "its URL cannot be used")
    # It has the request, and may have worked on it before whatever stands before it gave up.
    return errors.provider_unreachable(target.provider, "it closed the connection without an answer").paid()


def _why(cause: BaseException | None, host: str) -> str:
    """Return a reason that people can act on; where the platform's providers are is not the tenant's business."""
    if isinstance(cause, ssl.SSLError):
        return f"no trusted TLS connection to {host}"
    if isinstance(cause, socket.gaierror):
        return f"{host} cannot be resolved"
    if isinstance(cause, ConnectionRefusedError):
        return f"{host} refused the connection"
    return f"no connection to {host}"


async def refusal(target: Target, response: Response) -> errors.GatewayError:
    """Return what to tell the client for an answer that is not a success; reads the answer's body, within bounds."""
    body = _without_secret(target, await error_body(response))
    detail = error_bodies.read(body) or error_bodies.text(body) or Detail()
    return translate(target, response.status, detail, pauses.of_headers(response.headers, detail.pause))


async def error_body(response: Response) -> bytes:
    """Return the body of an answer that says what went wrong, as far as it comes soon and is not too large."""
    body = b""
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < LARGEST_ERROR and (chunk := await response.next()):
                body = (body + chunk)[:LARGEST_ERROR]
    except (TimeoutError, HttpError):
        pass
    return body


def error_detail(target: Target, body: bytes) -> Detail | None:
    """Return the error in an answer's body, in any of the shapes that providers use, without the key in it."""
    return error_bodies.read(_without_secret(target, body))


def _without_secret(target: Target, body: bytes) -> bytes:
    return body if target.secret is None else body.replace(target.secret, b"***")


def hidden(target: Target, detail: Detail) -> errors.GatewayError:
    """Return what an error means that came inside an answer with status 200, as OpenRouter's do."""
    return translate(target, detail.status, detail, detail.pause)


def in_event(target: Target, said: bytes, *, midway: bool) -> errors.GatewayError:
    """Return what an error event means.

    Args:
        target: whose it is.
        said: JSON or text.
        midway: whether an answer has begun; whoever reads it then knows who writes, and hears the provider's words.
    """
    said = _without_secret(target, said)
    detail = error_bodies.read(said) or error_bodies.text(said) or Detail()
    error = hidden(target, detail)
    if midway and error.said and error.code not in _WORDLESS:
        error.message = error.said if target.own else _without_accounts(error.said)
    return error


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
        return errors.provider_rate_limited(target.provider, said if target.own else "too many tokens at once")
    return None


def _without_accounts(said: str) -> str:
    """Return a provider's words without what names the platform's account with it: ids, keys, numbers of projects."""
    return _ACCOUNT.sub("***", said)


def translate(target: Target, status: int, detail: Detail, retry_after: object) -> errors.GatewayError:
    """Map a provider's refusal to what it means for the gateway's client.

    Args:
        target: whose it is.
        status: of HTTP.
        detail: what the body said.
        retry_after: in any form (`pauses`), None where nobody said.
    """
    provider = target.provider
    said = detail.message if isinstance(detail.message, str) else ""
    said = said[:LONGEST_MESSAGE].rstrip(".") or f"HTTP {status}"
    words = said
    if not target.own:
        said = _without_accounts(said)
    known = _known(target, status, detail, said)
    if known is not None:
        error = known
    elif status in {401, 403} or (status == 400 and _BAD_KEY.search(said)):  # Gemini answers 400
        error = errors.provider_unauthorized(provider, own=target.own)
    elif status in {408, 504}:
        error = errors.provider_timeout(provider, "timed out")
    elif status == 429:
        # How much the platform may use of a provider, and who it is there, is not the tenant's to know.
        error = errors.provider_rate_limited(provider, said if target.own else "too many calls at present")
    elif status == 404 or (status in _REFUSED and (detail.words & _NO_MODEL_CODES or _NO_MODEL.search(said))):
        why = f"does not know the model or the path: {said}"
        error = errors.provider_error(provider, why, code="provider_model_not_found")
    elif 400 <= status < 500 and status not in _NOT_NOW:
        code = detail.code if isinstance(detail.code, str) else "provider_refused_request"
        param = detail.param if isinstance(detail.param, str) else None
        passed = status if status in {400, 409, 413, 415, 422} else 400
        error = errors.GatewayError(passed, code, f"Provider {provider} rejected the request: {said}.", param=param)
    elif 300 <= status < 400:
        error = errors.provider_error(provider, "answered with a redirect, which is not followed")
    else:
        error = errors.provider_error(provider, f"failed: {said}")
    error.said = words
    pause = pauses.seconds(retry_after)
    if pause is not None and status in {429, 503} and error.code != "provider_quota_exhausted":
        error.headers["retry-after"] = str(math.ceil(pause))
        error.pause = pause
        error.again = True
    return error
