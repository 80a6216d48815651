"""`POST /v1/chat/completions` as an ASGI application of its own: what nine requests of ten ask for takes no detour.

Litestar finds, describes and guards the route like every other (`chat/controller.py`); the edge hands requests with
exactly this method and path here at once. Both ways lead through `Chat`, so both do the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from assistant_api import errors
from assistant_api.asgi import WholeAnswer, encoded, headers_of, origin_of
from assistant_api.auth.accounts import Accounts, is_token
from assistant_api.auth.service import identify
from assistant_api.body import Bodies, read_json_body
from assistant_api.chat.citations import Sources, annotate
from assistant_api.chat.service import Answered, Asked, Retrieve, ask, understand
from assistant_api.chat.stream import EVENT_STREAM, EventStream
from assistant_api.chunks import chunks_of
from assistant_api.clients import Clients
from assistant_api.decoding import MALFORMED
from assistant_api.gateway import (
    MAX_ERROR_BYTES,
    Answer,
    ErrorEnvelope,
    GatewayUnreachableError,
    error_of,
    on_behalf_of,
    passed_on,
)
from assistant_api.hangup import CallerGoneError, until_hangup
from assistant_api.i18n import Catalogs
from assistant_api.tenant_config import Served, TenantConfigHolder
from assistant_api.tokens import tokens_of

PATH = "/v1/chat/completions"
MAX_BODY = 1 << 20
_STREAM_HEADERS = (
    (b"content-type", f"{EVENT_STREAM}; charset=utf-8".encode()),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events otherwise
)


class Chat:
    """Answers chat completions; checks the caller itself."""

    def __init__(
        self,
        config: TenantConfigHolder,
        clients: Clients,
        catalogs: Catalogs,
        retrieve: Retrieve,
        accounts: Accounts,
    ) -> None:
        self._config = config
        self._accounts = accounts
        self._clients = clients
        self._catalogs = catalogs
        self._retrieve = retrieve
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["path_template"] = PATH
        try:
            response = await self._answer(scope, receive)
        except Exception as error:  # noqa: BLE001  as Litestar does for the other routes
            response = errors.answer_to(error, scope, self._catalogs)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> WholeAnswer | EventStream:
        started = time.perf_counter()
        headers = headers_of(scope)
        served = self._config.current
        authorization = headers.get("authorization")
        if authorization is not None and is_token(authorization):
            identity = await self._accounts.identify(authorization, served)
        else:
            identity = identify(authorization, served)
        on_behalf_of(identity.user)
        noted = scope["state"]
        noted["key"] = identity.name
        async with self._bodies.room(headers, MAX_BODY):
            chunks = chunks_of(scope)
            body = await read_json_body(headers, receive, MAX_BODY, complete=chunks is not None and chunks.received)
            asked = understand(body, served)
            noted["assistant"] = asked.assistant.name
            # A key speaks for whom it names; who signed in is known.
            if (user := asked.request.end_user) and not identity.is_person:
                on_behalf_of(user)
            answered = await self._ask(asked, served, scope, receive)
        if isinstance(answered, WholeAnswer):
            return answered
        return self._stream(scope, headers, asked, answered, started)

    async def _ask(self, asked: Asked, served: Served, scope: Scope, receive: Receive) -> WholeAnswer | Answered:
        """Return the whole answer, or a stream that has begun."""
        sent = {"x-request-id": errors.request_id(scope)}
        answered: Answered | None = None
        try:
            async with until_hangup(receive):
                answered = await ask(asked, served, self._clients, self._retrieve, sent)
                return answered if _is_stream(answered.answer) else await _whole(answered, asked, scope)
        except CallerGoneError:
            if answered is not None:
                answered.answer.close()
            raise

    def _stream(
        self, scope: Scope, headers: Mapping[str, str], asked: Asked, answered: Answered, started: float
    ) -> EventStream:
        language = self._catalogs.negotiate(headers.get("accept-language"))
        interrupted = errors.ApiError(errors.STREAM_INTERRUPTED)
        return EventStream(
            answered.answer,
            headers=[*_STREAM_HEADERS, *encoded(passed_on(answered.answer.headers))],
            sources=_sources(answered, scope),
            assistant=asked.assistant.name,
            started=started,
            interrupted=lambda: errors.openai_envelope(interrupted, self._catalogs, language, errors.request_id(scope)),
        )


def _is_stream(answer: Answer) -> bool:
    return answer.status == 200 and answer.headers.get("content-type", "").startswith(EVENT_STREAM)


def _sources(answered: Answered, scope: Scope) -> Sources | None:
    return Sources(answered.passages, origin_of(scope)) if answered.passages else None


async def _whole(answered: Answered, asked: Asked, scope: Scope) -> WholeAnswer:
    answer, noted = answered.answer, scope["state"]
    try:
        content = await answer.read()
    except GatewayUnreachableError as error:
        raise errors.from_gateway(error) from error
    finally:
        answer.close()
    if answer.status != 200:
        return _refusal(answer, content, asked.request.model, noted)
    noted["tokens"] = tokens_of(content)
    if sources := _sources(answered, scope):
        content = annotate(content, sources)
    return WholeAnswer(200, passed_on(answer.headers), content)


def _refusal(answer: Answer, content: bytes, model: str, noted: dict[str, Any]) -> WholeAnswer:
    """Return the gateway's error: translated where we know its code, as it is where only the provider knows."""
    error = error_of(answer.status, content, answer.headers)
    headers = passed_on(answer.headers)
    if errors.is_ours(error) or not _is_envelope(content):
        api_error = errors.from_gateway(error, model)
        api_error.headers = {**headers, **api_error.headers}
        raise api_error
    noted["code"] = error.code
    return WholeAnswer(answer.status, headers, content)


def _is_envelope(content: bytes) -> bool:
    try:
        return len(content) <= MAX_ERROR_BYTES and bool(msgspec.json.decode(content, type=ErrorEnvelope).error.message)
    except MALFORMED:
        return False
