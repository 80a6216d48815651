"""One response, from the caller's bytes to what is answered and stored."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
from litestar.types import Receive, Scope

from assistant_api import errors
from assistant_api.asgi import BufferedResponse, encoded
from assistant_api.assistants.service import find
from assistant_api.chat import service as chat
from assistant_api.chat.citations import annotate
from assistant_api.chat.endpoint import STREAM_HEADERS, is_stream, sources_of
from assistant_api.chat.service import ChatResult, ParsedChat, Retrieve
from assistant_api.chat.stream import EVENT_STREAM, EventStream, Relay, relay_of
from assistant_api.clients import Clients
from assistant_api.decoding import MALFORMED
from assistant_api.disconnect import ClientDisconnectedError, cancel_on_disconnect
from assistant_api.errors import ApiError, from_gateway, from_validation, invalid_field
from assistant_api.gateway import GatewayResponse, GatewayUnreachableError, passed_on
from assistant_api.refusals import refusal
from assistant_api.responses import store
from assistant_api.responses.output import Writer
from assistant_api.responses.schemas import Completion, ResponseRequest
from assistant_api.responses.translation import chat_request
from assistant_api.tenant_config import ActiveConfig
from assistant_http.events import data_of, split

_decode = msgspec.json.Decoder(ResponseRequest).decode
_completion = msgspec.json.Decoder(Completion).decode


@dataclass(slots=True)
class Work:
    """A request that was understood, and what its response is written and stored with."""

    request: ResponseRequest
    owner: str
    active_config: ActiveConfig
    clients: Clients
    failure: str  # the sentence for a response that breaks off
    items: list[msgspec.Raw] = field(default_factory=list)  # of this request alone

    async def chat(self) -> ParsedChat:
        """Return the chat completion that answers the request; ApiError names what it cannot carry."""
        request = self.request
        find(self.active_config, request.model)
        request.check()
        self.items = _items(request)
        before: list[msgspec.Raw] = []
        if request.previous_response_id is not None:
            before = await store.earlier(self.clients.database, self.owner, request.previous_response_id)
        if not (items := [*before, *self.items]):
            raise invalid_field("input", "empty")
        members = chat_request(request, items)
        if request.stored:
            self.clients.database.breaker.check()  # before anything is paid for
        return chat.parse_request(msgspec.json.encode(members), self.active_config)

    def writer(self) -> Writer:
        """Return the writer of the response, which has begun."""
        writer = Writer(_begun(self.request))
        writer.begin()
        return writer

    async def complete(self, writer: Writer) -> None:
        """Bring the response to its end, and store it."""
        writer.finish(self.failure)
        if self.request.stored and not await store.save(self.clients.database, self.owner, writer.response, self.items):
            writer.response["store"] = False
        writer.end()


class ResponseRelay(Relay):
    """Turns the stream of a chat completion, with its citations, into the events of a response."""

    def __init__(self, citing: Relay, work: Work) -> None:
        super().__init__()
        self._citing = citing
        self._work = work
        self._writer = work.writer()

    def feed(self, data: bytes) -> bytes:
        """See `Relay.feed`."""
        return self._events(self._citing.feed(data))

    async def finish(self, interrupted: bytes) -> bytes:
        """See `Relay.finish`."""
        rest = self._events(self._citing.end())
        self._writer.failed = self._writer.failed or bool(interrupted)
        await self._work.complete(self._writer)
        self.tokens = self._writer.tokens
        return rest + self._writer.take()

    def _events(self, block: bytes) -> bytes:
        for event in split(block):
            if data := data_of(event):
                try:
                    self._writer.feed(_completion(data))
                except MALFORMED:
                    continue
        return self._writer.take()


def understand(body: bytes) -> ResponseRequest:
    """Return the caller's request; the ApiError names the first field that is wrong."""
    try:
        return _decode(body)
    except MALFORMED as error:
        raise from_validation(error) from error


async def answer(
    work: Work, parsed_chat: ParsedChat, retrieve: Retrieve, scope: Scope, receive: Receive
) -> BufferedResponse | EventStream:
    """Ask the gateway; return the response, or its events as they come."""
    started = time.perf_counter()
    sent = {"x-request-id": errors.request_id(scope)}
    chat_result: ChatResult | None = None
    try:
        async with cancel_on_disconnect(receive):
            chat_result = await chat.ask(parsed_chat, work.active_config, work.clients, retrieve, sent)
            if not is_stream(chat_result.response):
                return await _whole(chat_result, work, scope)
    except ClientDisconnectedError:
        if chat_result is not None:
            chat_result.response.close()
        raise
    return EventStream(
        chat_result.response,
        headers=[*STREAM_HEADERS, *encoded(passed_on(chat_result.response.headers))],
        relay=ResponseRelay(relay_of(sources_of(chat_result, scope)), work),
        assistant=parsed_chat.assistant.name,
        started=started,
        interrupted=lambda: b"{}",  # the relay says it
    )


async def _whole(chat_result: ChatResult, work: Work, scope: Scope) -> BufferedResponse:
    content = await _read(chat_result.response)
    noted = scope["state"]
    if chat_result.response.status != 200:
        return refusal(chat_result.response, content, work.request.model, noted)
    if sources := sources_of(chat_result, scope):
        content = annotate(content, sources)
    writer = work.writer()
    try:
        writer.feed(_completion(content))
    except MALFORMED as error:
        raise ApiError(errors.PROVIDER_UNREACHABLE) from error
    await work.complete(writer)
    noted["tokens"] = writer.tokens
    headers = passed_on(chat_result.response.headers)
    if work.request.stream:  # from a provider that does not stream
        return BufferedResponse(200, headers, writer.take(), f"{EVENT_STREAM}; charset=utf-8")
    return BufferedResponse(200, headers, msgspec.json.encode(writer.response))


async def _read(answer: GatewayResponse) -> bytes:
    try:
        return await answer.read()
    except GatewayUnreachableError as error:
        raise from_gateway(error) from error
    finally:
        answer.close()


def _items(request: ResponseRequest) -> list[msgspec.Raw]:
    """Return the request's own input as items."""
    if isinstance(request.input, list):
        return request.input
    if not request.input:
        return []
    return [msgspec.Raw(msgspec.json.encode({"type": "message", "role": "user", "content": request.input}))]


def _begun(request: ResponseRequest) -> dict[str, Any]:
    text, reasoning = request.text, request.reasoning
    written: Any = text.format if text and text.format else {"type": "text"}
    return {
        "id": f"{store.PREFIX}{uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": request.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "service_tier": request.service_tier,
        "store": request.stored,
        "temperature": request.temperature,
        "text": {"format": written, **({"verbosity": text.verbosity} if text and text.verbosity else {})},
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools or [],
        "top_p": request.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
    }
