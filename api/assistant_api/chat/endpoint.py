"""`POST /v1/chat/completions` as an ASGI application of its own: what nine requests of ten ask for takes no detour.

Litestar finds, describes and guards the route like every other (`chat/controller.py`); the edge hands requests with
exactly this method and path here at once. Both ways lead through `Chat`, so both do the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from litestar.types import Receive, Scope, Send

from assistant_api import errors
from assistant_api.asgi import BufferedResponse, encoded, headers_of, origin_of
from assistant_api.auth.accounts import Accounts, is_token
from assistant_api.auth.service import identify
from assistant_api.body import BodyCapacity, read_json_body
from assistant_api.chat.citations import Sources, annotate
from assistant_api.chat.service import ChatResult, ParsedChat, Retrieve, ask, parse_request
from assistant_api.chat.stream import EVENT_STREAM, EventStream, relay_of
from assistant_api.clients import Clients
from assistant_api.direct_write import direct_writer
from assistant_api.disconnect import ClientDisconnectedError, cancel_on_disconnect
from assistant_api.gateway import GatewayResponse, GatewayUnreachableError, on_behalf_of, passed_on
from assistant_api.i18n import Catalogs
from assistant_api.refusals import refusal
from assistant_api.tenant_config import ActiveConfig, TenantConfigHolder
from assistant_api.tokens import tokens_of

PATH = "/v1/chat/completions"
MAX_BODY = 1 << 20
STREAM_HEADERS = (
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
        bodies: BodyCapacity | None = None,
    ) -> None:
        self._config = config
        self._accounts = accounts
        self._clients = clients
        self._catalogs = catalogs
        self._retrieve = retrieve
        self._bodies = bodies or BodyCapacity()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["path_template"] = PATH
        try:
            response = await self._respond(scope, receive)
        except Exception as error:  # noqa: BLE001  as Litestar does for the other routes
            response = errors.to_response(error, scope, self._catalogs)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> BufferedResponse | EventStream:
        started = time.perf_counter()
        headers = headers_of(scope)
        active_config = self._config.current
        authorization = headers.get("authorization")
        if authorization is not None and is_token(authorization):
            identity = await self._accounts.identify(authorization, active_config)
        else:
            identity = identify(authorization, active_config)
        on_behalf_of(identity.user)
        noted = scope["state"]
        noted["key"] = identity.name
        async with self._bodies.room(headers, MAX_BODY):
            writer = direct_writer(scope)
            body = await read_json_body(headers, receive, MAX_BODY, complete=writer is not None and writer.received)
            parsed_chat = parse_request(body, active_config)
            noted["assistant"] = parsed_chat.assistant.name
            # A key speaks for whom it names; who signed in is known.
            if (user := parsed_chat.request.end_user) and not identity.is_person:
                on_behalf_of(user)
            chat_result = await self._ask(parsed_chat, active_config, scope, receive)
        if isinstance(chat_result, BufferedResponse):
            return chat_result
        return self._stream(scope, headers, parsed_chat, chat_result, started)

    async def _ask(
        self, parsed_chat: ParsedChat, active_config: ActiveConfig, scope: Scope, receive: Receive
    ) -> BufferedResponse | ChatResult:
        """Return the whole answer, or a stream that has begun."""
        sent = {"x-request-id": errors.request_id(scope)}
        chat_result: ChatResult | None = None
        try:
            async with cancel_on_disconnect(receive):
                chat_result = await ask(parsed_chat, active_config, self._clients, self._retrieve, sent)
                return chat_result if is_stream(chat_result.response) else await _whole(chat_result, parsed_chat, scope)
        except ClientDisconnectedError:
            if chat_result is not None:
                chat_result.response.close()
            raise

    def _stream(
        self, scope: Scope, headers: Mapping[str, str], parsed_chat: ParsedChat, chat_result: ChatResult, started: float
    ) -> EventStream:
        language = self._catalogs.negotiate(headers.get("accept-language"))
        interrupted = errors.ApiError(errors.STREAM_INTERRUPTED)
        return EventStream(
            chat_result.response,
            headers=[*STREAM_HEADERS, *encoded(passed_on(chat_result.response.headers))],
            relay=relay_of(sources_of(chat_result, scope)),
            assistant=parsed_chat.assistant.name,
            started=started,
            interrupted=lambda: errors.openai_envelope(interrupted, self._catalogs, language, errors.request_id(scope)),
        )


def is_stream(response: GatewayResponse) -> bool:
    """Return whether the gateway answers with events."""
    return response.status == 200 and response.headers.get("content-type", "").startswith(EVENT_STREAM)


def sources_of(chat_result: ChatResult, scope: Scope) -> Sources | None:
    """Return what an answer may cite, None where there is nothing."""
    return Sources(chat_result.passages, origin_of(scope)) if chat_result.passages else None


async def _whole(chat_result: ChatResult, parsed_chat: ParsedChat, scope: Scope) -> BufferedResponse:
    response, noted = chat_result.response, scope["state"]
    try:
        content = await response.read()
    except GatewayUnreachableError as error:
        raise errors.from_gateway(error) from error
    finally:
        response.close()
    if response.status != 200:
        return refusal(response, content, parsed_chat.request.model, noted)
    noted["tokens"] = tokens_of(content)
    if sources := sources_of(chat_result, scope):
        content = annotate(content, sources)
    return BufferedResponse(200, passed_on(response.headers), content)
