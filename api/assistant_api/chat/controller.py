"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from litestar import Controller, Request, post
from litestar.datastructures import State
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from assistant_api import errors
from assistant_api.body import read_json_body
from assistant_api.chat.citations import annotate
from assistant_api.chat.openapi import ChatOperation
from assistant_api.chat.service import Answered, Asked, Retrieve, ask, understand
from assistant_api.chat.stream import EVENT_STREAM, EventStream
from assistant_api.clients import Clients
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
from assistant_api.tenant_config import Served

MAX_BODY = 1 << 20


class ChatController(Controller):
    """Chat completions in OpenAI's wire format."""

    path = "/chat"
    tags = ["OpenAI"]

    @post(
        "/completions",
        status_code=200,
        summary="Ask an assistant",
        operation_class=ChatOperation,
        media_type="application/json",
    )
    async def complete(self, request: Request[Any, Any, State]) -> ASGIApp:
        """Answer a conversation, streamed or whole, with the passages that the answer rests on as annotations."""
        started = time.perf_counter()
        state = request.app.state
        served: Served = state.config.current
        clients: Clients = state.clients
        retrieve: Retrieve = state.retrieve
        asked = understand(await read_json_body(request, MAX_BODY), served)
        if user := asked.request.end_user:
            on_behalf_of(user)
        sent = {"x-request-id": errors.request_id(request)}
        answered: Answered | None = None
        try:
            async with until_hangup(request.receive):
                answered = await ask(asked, served, clients, retrieve, sent)
                if not _is_stream(answered.answer):
                    return await _whole(answered, asked)
        except CallerGoneError:
            if answered is not None:
                answered.answer.close()
            raise
        return _stream(request, asked, answered, started)


def _is_stream(answer: Answer) -> bool:
    return answer.status == 200 and answer.headers.get("content-type", "").startswith(EVENT_STREAM)


def _stream(request: Request[Any, Any, State], asked: Asked, answered: Answered, started: float) -> EventStream:
    language = request.app.state.catalogs.negotiate(request.headers.get("accept-language"))
    interrupted = errors.openai_envelope(
        errors.ApiError(errors.STREAM_INTERRUPTED), request.app.state.catalogs, language, errors.request_id(request)
    )
    headers = [
        (b"content-type", f"{EVENT_STREAM}; charset=utf-8".encode()),
        (b"x-accel-buffering", b"no"),  # nginx would collect the events otherwise
        *((name.encode(), value.encode("latin-1")) for name, value in passed_on(answered.answer.headers).items()),
    ]
    return EventStream(
        answered.answer,
        headers=headers,
        passages=answered.passages,
        assistant=asked.assistant.name,
        started=started,
        interrupted=interrupted,
    )


async def _whole(answered: Answered, asked: Asked) -> ASGIResponse:
    answer = answered.answer
    try:
        content = await answer.read()
    except GatewayUnreachableError as error:
        raise errors.from_gateway(error) from error
    finally:
        answer.close()
    headers = passed_on(answer.headers)
    if answer.status != 200:
        return _refusal(answer, content, headers, asked.request.model)
    if answered.passages:
        content = annotate(content, answered.passages)
    return _json(content, 200, headers)


def _refusal(answer: Answer, content: bytes, headers: dict[str, str], model: str) -> ASGIResponse:
    """Return the gateway's error: translated where we know its code, as it is where only the provider knows."""
    error = error_of(answer.status, content, answer.headers)
    if errors.is_ours(error) or not _is_envelope(content):
        api_error = errors.from_gateway(error, model)
        api_error.headers = {**headers, **api_error.headers}
        raise api_error
    return _json(content, answer.status, headers)


def _is_envelope(content: bytes) -> bool:
    try:
        return len(content) <= MAX_ERROR_BYTES and bool(msgspec.json.decode(content, type=ErrorEnvelope).error.message)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def _json(content: bytes, status: int, headers: dict[str, str]) -> ASGIResponse:
    return ASGIResponse(body=content, status_code=status, headers=headers, media_type="application/json")
