"""The client of the gateway: the only way from a tenant to a model.

Chat answers are handed on as they come (status, headers, bytes), because they belong to the caller; embeddings are
decoded, because this package uses them. Nothing here is specific to one assistant.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from assistant_api.decoding import MALFORMED
from assistant_crds.contracts import NOT_STARTED_HEADER, TOTAL_SECONDS
from assistant_crds.gateway_api import PURPOSE_HEADER, Purpose
from assistant_http.client import HttpClient
from assistant_http.errors import HttpError, NotConnectedError, StaleConnectionError
from assistant_http.response import MAX_RESPONSE_BYTES, Response
from assistant_observability import logs, traces

CONNECT_TIMEOUT_SECONDS = 2.0
# So much longer than the gateway may take (`TenantConfig.gateway_seconds`): its answer is paid for, its error explains
# more than ours would.
MARGIN_SECONDS = 30.0
EMBEDDINGS_TIMEOUT_SECONDS = {Purpose.SEARCH: 15.0, Purpose.INGEST: 120.0}
# Numbers take ten times as much once they are decoded, and the API has less memory than the worker.
MAX_EMBEDDINGS_BYTES = {Purpose.SEARCH: 1 << 20, Purpose.INGEST: MAX_RESPONSE_BYTES}
PING_TIMEOUT_SECONDS = 2.0
PROVIDERS_TIMEOUT_SECONDS = 12.0  # the gateway waits 8 for those that do not answer
USAGE_TIMEOUT_SECONDS = 15.0  # the gateway gives up earlier, and says why
# Shorter than any server keeps an idle connection, so that a POST rarely meets a closing one.
KEEPALIVE_TIMEOUT_SECONDS = 15.0
MAX_ERROR_BYTES = 64 * 1024
MAX_USER_CHARACTERS = 256
# Waits between tries of what was provably not begun: while a gateway goes, its address stays known for a moment.
_MODELS, _EMBEDDINGS = "/v1/models", "/v1/embeddings"
RETRY_DELAYS_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
# A kept connection that closes later than this under a request may have been read: the call is then not repeated.
STALE_RETRY_TIMEOUT_SECONDS = 0.5
_JSON = "application/json"
_NONE: Mapping[str, str] = {}
# What a caller is told of models and limits: headers with these names, or these beginnings.
_PASSED_ON = frozenset({"x-assistant-model", "retry-after", "retry-after-ms", "x-should-retry"})
_PASSED_ON_PREFIXES = ("x-ratelimit-", "x-budget-")
# Set for each request, as the trace is: whoever makes a call further down need not know of it.
_user: ContextVar[str] = ContextVar("user", default="")


GatewayUnreachableError = HttpError  # no answer came: refused, timed out, cut


class GatewayError(Exception):
    """The gateway answered with an error. `retry_after` is in seconds, None when it named none.

    `headers` are those that a caller is told, `param` is the field that is wrong.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after: float | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        self.param = param

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later."""
        return self.status == 429 or self.status >= 500


class ErrorBody(msgspec.Struct):
    """`error` of OpenAI's envelope."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class ErrorEnvelope(msgspec.Struct):
    """The body of an OpenAI error."""

    error: ErrorBody


class _Embedding(msgspec.Struct):
    embedding: list[float]
    index: int | str | None = None  # protobuf leaves a zero out, and writes long numbers as text


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]


class GatewayResponse(Response, Protocol):
    """An answer of the gateway; to close it lets the gateway drop the provider's call in turn."""

    async def read(self) -> bytes:
        """Return the whole body; GatewayUnreachableError when it is cut, or larger than any sane answer."""


class Gateway(Protocol):
    """What the API asks of the gateway."""

    async def chat(self, body: bytes, headers: Mapping[str, str]) -> GatewayResponse:
        """Start `POST /v1/chat/completions`; returns when the status line is there."""

    async def vectors(self, body: bytes, headers: Mapping[str, str]) -> GatewayResponse:
        """Start `POST /v1/embeddings` with a caller's own request; returns when the status line is there."""

    async def embeddings(self, texts: Sequence[str], knowledge_base: str, purpose: Purpose) -> list[list[float]]:
        """Return one vector per text, in order. Raises GatewayError or GatewayUnreachableError."""

    async def usage(self, parameters: Sequence[tuple[str, str]]) -> bytes:
        """Return the tenant's usage as JSON. Raises GatewayError or GatewayUnreachableError."""

    async def providers(self) -> bytes:
        """Return what the tenant may use as JSON. Raises GatewayError or GatewayUnreachableError."""

    async def ping(self) -> None:
        """Prove that the gateway answers and knows this tenant. Raises GatewayError or GatewayUnreachableError."""

    async def close(self) -> None:
        """Close every connection."""


class TokenFile:
    """The projected ServiceAccount token; the kubelet replaces it long before it expires."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._seen: tuple[int, int] | None = None
        self._token = ""

    def read(self) -> str:
        """Return the token; GatewayUnreachableError when none is mounted."""
        try:
            found = os.stat(self._path)  # noqa: PTH116  for every request: half of what `Path` takes
            identity = (found.st_ino, found.st_mtime_ns)
            if identity != self._seen:
                self._token = Path(self._path).read_text().strip()
                self._seen = identity
        except OSError as error:
            raise GatewayUnreachableError(f"the gateway token cannot be read: {error.strerror}") from error
        return self._token


class GatewayClient:
    """A `Gateway` over HTTP.

    `url`, and `seconds` that the gateway may take for one request, are asked at each call: the configuration may
    change them.
    """

    def __init__(self, url: Callable[[], str], token: TokenFile, seconds: Callable[[], float] | None = None) -> None:
        self._url = url
        self._seconds = seconds or (lambda: TOTAL_SECONDS)
        self._token = token
        self._http: HttpClient | None = None

    async def chat(self, body: bytes, headers: Mapping[str, str]) -> GatewayResponse:
        """See `Gateway.chat`."""
        return await self._send("POST", "/v1/chat/completions", headers, body)

    async def vectors(self, body: bytes, headers: Mapping[str, str]) -> GatewayResponse:
        """See `Gateway.vectors`."""
        return await self._send("POST", _EMBEDDINGS, headers, body)

    async def embeddings(self, texts: Sequence[str], knowledge_base: str, purpose: Purpose) -> list[list[float]]:
        """See `Gateway.embeddings`."""
        body = msgspec.json.encode({"model": knowledge_base, "input": list(texts), "encoding_format": "float"})
        content = await self._whole(
            EMBEDDINGS_TIMEOUT_SECONDS[purpose],
            "POST",
            _EMBEDDINGS,
            {PURPOSE_HEADER: purpose.value},
            body,
            MAX_EMBEDDINGS_BYTES[purpose],
        )
        try:
            decoded = msgspec.json.decode(content, type=_Embeddings)
        except MALFORMED as error:
            raise GatewayError(502, "provider_error", f"not an embeddings answer: {error}") from error
        if len(decoded.data) != len(texts):
            raise GatewayError(502, "provider_error", f"{len(decoded.data)} embeddings for {len(texts)} texts")
        return _in_order(decoded.data)

    async def usage(self, parameters: Sequence[tuple[str, str]]) -> bytes:
        """See `Gateway.usage`."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        return await self._whole(USAGE_TIMEOUT_SECONDS, "GET", f"/v1/usage{query}")

    async def providers(self) -> bytes:
        """See `Gateway.providers`."""
        return await self._whole(PROVIDERS_TIMEOUT_SECONDS, "GET", "/v1/providers")

    async def ping(self) -> None:
        """See `Gateway.ping`: lists the models, which needs a good token and a loaded policy."""
        await self._whole(PING_TIMEOUT_SECONDS, "GET", _MODELS)

    async def close(self) -> None:
        """Close every connection."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _open(self) -> HttpClient:
        # The gateway itself bounds what a tenant may do at once; a limit here would only queue unseen.
        quiet_seconds = self._seconds() + MARGIN_SECONDS
        if self._http is None:
            self._http = HttpClient(
                connect_seconds=CONNECT_TIMEOUT_SECONDS,
                idle_seconds=KEEPALIVE_TIMEOUT_SECONDS,
                quiet_seconds=quiet_seconds,
            )
        self._http.quiet_seconds = quiet_seconds
        return self._http

    async def _whole(
        self,
        seconds: float,
        method: str,
        path: str,
        headers: Mapping[str, str] = _NONE,
        body: bytes = b"",
        most: int = MAX_RESPONSE_BYTES,
    ) -> bytes:
        """Ask, and return the body; `seconds` are for all of it, which has `most` bytes at most."""
        try:
            async with asyncio.timeout(seconds):
                response = await self._send(method, path, headers, body)
                try:
                    content = await _read(response, most)
                finally:
                    response.close()
        except TimeoutError as error:
            raise GatewayUnreachableError("timed out") from error
        if response.status >= 400:
            raise error_of(response.status, content, response.headers)
        return content

    def _headers(self, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        sent = {"user-agent": "assistant-api", **headers, "authorization": f"Bearer {self._token.read()}"}
        if body:
            sent["content-type"] = _JSON
        if request_id := logs.request_id.get():
            sent.setdefault("x-request-id", request_id)
        if user := _user.get():
            sent["x-assistant-user"] = user
        traces.inject(sent)
        return sent

    async def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> GatewayResponse:
        sent = self._headers(headers, body)
        now = asyncio.get_running_loop().time
        stale, pauses = (
            False,
            iter(() if path == _MODELS else RETRY_DELAYS_SECONDS),
        )  # a check of health says what is so now
        while True:  # asked again is only what no gateway has begun: no call is made twice that may be billed
            client, started, pause = self._open(), now(), 0.0
            try:
                response = await client.request(method, self._url(), sent, body, path=path)
                if response.status != 503 or NOT_STARTED_HEADER not in response.headers:
                    return response
                if not (pause := next(pauses, 0.0)):
                    return response
                response.close()
            except NotConnectedError:  # during a rollout one pod may be gone
                if not (pause := next(pauses, 0.0)):
                    raise
            except StaleConnectionError:
                # Closed by the gateway as it was used again; it never closes one whose request it has begun.
                if stale or now() - started >= STALE_RETRY_TIMEOUT_SECONDS:
                    raise
                stale = True
            client.drop_idle()  # those that were kept lead to the same gateway
            await asyncio.sleep(pause)


def _in_order(found: Sequence[_Embedding]) -> list[list[float]]:
    """Return the vectors in the order of their texts.

    An index that is missing is the only one that is left, or the position in the list. Where all are the same, as from
    servers that embed one text at a time, they say nothing.

    Raises:
        GatewayError: nobody can say which vector belongs to which text.
    """
    given = [_whole(item.index) for item in found]
    known = {index for index in given if index is not None}
    if len(known) <= 1 and len(found) > 1 and None not in given:
        return [item.embedding for item in found]
    if given.count(None) == 1 and len(known) == len(found) - 1:
        left = set(range(len(found))) - known
        given = [min(left, default=None) if index is None and len(left) == 1 else index for index in given]
    places = [position if index is None else index for position, index in enumerate(given)]
    if len(set(places)) != len(places):
        raise GatewayError(502, "provider_error", "the embeddings' indexes contradict each other")
    return [item.embedding for _, item in sorted(zip(places, found, strict=True), key=lambda pair: pair[0])]


def _whole(index: int | str | None) -> int | None:
    return int(index) if isinstance(index, int) or (index and index.isdecimal()) else None


async def _read(response: GatewayResponse, most: int) -> bytes:
    """Return the whole body, of at most `most` bytes; GatewayUnreachableError when it is larger, or cut."""
    parts: list[bytes] = []
    while part := await response.next():
        most -= len(part)
        if most < 0:
            raise GatewayUnreachableError("the answer is too large")
        parts.append(part)
    return b"".join(parts)


def error_of(status: int, content: bytes, headers: Mapping[str, str]) -> GatewayError:
    """Return the error in an answer of the gateway, whatever its body looks like."""
    try:
        error = msgspec.json.decode(content[:MAX_ERROR_BYTES], type=ErrorEnvelope).error
    except MALFORMED:
        error = ErrorBody(message=f"The gateway answered {status}.")
    code = str(error.code or error.type or "gateway_error")
    return GatewayError(
        status,
        code,
        error.message,
        retry_after(headers.get("retry-after")),
        headers=passed_on(headers),
        param=error.param,
    )


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what a caller is told of the gateway's headers: which model answered, what is left, when to come back."""
    return {
        name: value for name, value in headers.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


def on_behalf_of(user: str) -> None:
    """Have the calls of this request counted for `user`; what no header can carry is left out of its name."""
    user = user[:MAX_USER_CHARACTERS]
    if not user.isprintable():
        user = "".join(char if char.isprintable() else " " for char in user)
    _user.set(user.strip())


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header; a date, or nonsense, is None."""
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
