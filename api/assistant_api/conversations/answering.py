"""One answer of an assistant to a path of messages: asked as a chat completion is, read to its end, never handed on.

The chat's own service does the work; here its stream becomes text, citations and counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from assistant_api import errors
from assistant_api.chat.citations import Sources
from assistant_api.chat.schemas import StreamChunk
from assistant_api.chat.service import Retrieve, ask, parse_request
from assistant_api.chat.stream import EVENT_STREAM
from assistant_api.clients import Clients
from assistant_api.decoding import MALFORMED
from assistant_api.errors import ApiError, from_gateway
from assistant_api.gateway import MARGIN_SECONDS, ErrorEnvelope, GatewayResponse, GatewayUnreachableError, error_of
from assistant_api.tenant_config import ActiveConfig
from assistant_api.tokens import Tokens, tokens_of
from assistant_http.events import Frames, data_of, split
from assistant_observability import logs

MAX_ANSWER_CHARACTERS = 512 * 1024  # characters; what goes on beyond them is cut off, and says so

_decode_chunk = msgspec.json.Decoder(StreamChunk).decode
_decode_error = msgspec.json.Decoder(ErrorEnvelope).decode
_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """What an assistant is asked, with everything that it takes."""

    assistant: str
    messages: Sequence[Mapping[str, Any]]
    active_config: ActiveConfig
    clients: Clients
    retrieve: Retrieve
    request_id: str


@dataclass(slots=True)
class Result:
    """What came of it. An answer with an `error` may have a text, too."""

    model: str | None = None
    annotations: str | None = None
    tokens: Tokens | None = None
    error: ApiError | None = None


async def answer(question: Question, say: Callable[[str], None], result: Result) -> None:
    """Ask, and `say` each piece of text as it comes; what else is known is put into `result`, as soon as it is known.

    To be cancelled when nobody wants the answer any more, which ends the model's work, too.
    """
    try:
        async with asyncio.timeout(question.active_config.document.gateway_seconds + MARGIN_SECONDS):
            await _answer(question, say, result)
    except ApiError as error:
        result.error = error
    except GatewayUnreachableError as error:
        _log.warning("answer interrupted", assistant=question.assistant, reason=str(error))
        result.error = ApiError(errors.STREAM_INTERRUPTED)
    except TimeoutError:
        result.error = ApiError(errors.PROVIDER_TIMEOUT)
    except Exception as error:  # noqa: BLE001  whatever it is, the answer has to come to an end that people see
        _log.error("answer failed unexpectedly", request_id=question.request_id, exc_info=error)
        result.error = ApiError(errors.INTERNAL)


async def _answer(question: Question, say: Callable[[str], None], result: Result) -> None:
    body = msgspec.json.encode(
        {
            "model": question.assistant,
            "messages": question.messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    parsed_chat = parse_request(body, question.active_config)
    sent = {"x-request-id": question.request_id}
    chat_result = await ask(parsed_chat, question.active_config, question.clients, question.retrieve, sent)
    found = chat_result.response
    try:
        if found.status != 200 or not found.headers.get("content-type", "").startswith(EVENT_STREAM):
            refused = error_of(found.status, await found.read(), found.headers)
            _log.info("answer refused", assistant=question.assistant, status=refused.status, code=refused.code)
            raise from_gateway(refused, question.assistant)
        result.model = found.headers.get("x-assistant-model")
        await _read(found, Sources(chat_result.passages, ""), say, result)
    finally:
        found.close()


async def _read(found: GatewayResponse, sources: Sources, say: Callable[[str], None], result: Result) -> None:
    frames, tracker, length = Frames(), sources.tracker(), 0
    try:
        while data := await found.next():
            block = frames.feed(data)
            result.tokens = tokens_of(block) or result.tokens
            words, failed = _words(block)
            if words:
                tracker.feed(words)
                say(words[: MAX_ANSWER_CHARACTERS - length])
                length += len(words)
            if failed:
                raise GatewayUnreachableError("the stream says that it failed")
            if length >= MAX_ANSWER_CHARACTERS or len(frames.rest) > MAX_ANSWER_CHARACTERS:
                raise GatewayUnreachableError("the answer is too long")
    finally:  # of a text that was cut off, too
        if marks := sources.annotations(tracker.marks):
            result.annotations = msgspec.json.encode(marks).decode()


def _words(block: bytes) -> tuple[str, bool]:
    """Return the words of whole events, and whether they end with one that says that the model has failed."""
    words: list[str] = []
    for event in split(block):
        if not (data := data_of(event)):
            continue
        try:
            chunk = _decode_chunk(data)
            if chunk.choices is None and b'"error"' in data:
                _decode_error(data)
                return _kept("".join(words)), True
        except MALFORMED:
            continue
        words += [choice.delta.text() for choice in chunk.choices or () if not choice.index and choice.delta]
    return _kept("".join(words)), False


def _kept(words: str) -> str:
    return words.replace("\0", "")  # Postgres keeps every character but this one
