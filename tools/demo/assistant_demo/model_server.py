"""An OpenAI-compatible server that stands in for a language model where none can be reached.

It needs no network and no accelerator: answers are quotations from the passages in the prompt. It says so in every
answer; tools are called, and JSON is written, by simple rules. Embeddings are of a small multilingual model where the
image holds it (`multilingual.py`), and of hashed words everywhere. Run it with `python -m assistant_demo.model_server`.
"""

from __future__ import annotations

import array
import asyncio
import base64
import hmac
import logging
import sys
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic_settings import BaseSettings, SettingsConfigDict

from assistant_demo.answering import answer
from assistant_demo.calling import document, tool_call
from assistant_demo.embedding import embed
from assistant_demo.multilingual import CHARACTERS_MAX, DIMENSIONS, Multilingual, load, missing
from assistant_demo.multilingual import NAME as MEANING_MODEL
from assistant_demo.text import tokens
from assistant_demo.wire import INPUTS_MAX, ChatRequest, EmbeddingRequest, WireError, decode, event

CHAT_MODEL = "stand-in"
SLOW_MODEL = "stand-in-slow"
EMBEDDING_MODEL = "stand-in-embedding"
DEFAULT_DIMENSIONS = 384
BODY_MAX = 16 * 1024 * 1024
EMBED_BATCH = 16  # texts embedded before other requests get a turn
CREATED = 1_767_225_600  # 2026-01-01, so that answers about the models never change


class ModelServerSettings(BaseSettings):
    """Settings, read once at start from the environment."""

    model_config = SettingsConfigDict(env_prefix="MODEL_SERVER_")

    host: str = "0.0.0.0"  # noqa: S104 - it serves a pod's network
    port: int = 8000
    api_key: str = ""
    word_seconds: float = 0.02  # pause between the words of a stream, so that people see one
    slow_word_seconds: float = 0.5  # the same for the model `stand-in-slow`, with which tests hold a stream open


@dataclass
class Activity:
    """What the server is doing and did last; `GET /activity` shows it, to people and to tests."""

    open_streams: int = 0
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=200))


SETTINGS = web.AppKey("settings", ModelServerSettings)
ACTIVITY = web.AppKey("activity", Activity)
MEANING = web.AppKey("meaning", Multilingual)
NO_MEANING = web.AppKey("no_meaning", str)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(settings: ModelServerSettings, meaning: Multilingual | str = "not asked for") -> web.Application:
    """Return the server; nothing is started. `meaning` is the multilingual model, or why there is none."""
    app = web.Application(middlewares=[_envelope, _admit], client_max_size=BODY_MAX)
    app[SETTINGS] = settings
    app[ACTIVITY] = Activity()
    if isinstance(meaning, str):
        app[NO_MEANING] = meaning
    else:
        app[MEANING] = meaning
    app.router.add_get("/healthz", _health)
    app.router.add_get("/activity", _activity)
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_post("/v1/embeddings", _embeddings)
    return app


@web.middleware
async def _envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error in OpenAI's envelope."""
    try:
        return await handler(request)
    except WireError as error:
        return web.json_response(error.envelope, status=error.status)
    except web.HTTPException as error:
        return web.json_response(WireError(error.status, f"{error.reason}.").envelope, status=error.status)


@web.middleware
async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Ask for the API key where one is set, and write down who asked for what."""
    if not request.path.startswith("/v1/"):
        return await handler(request)
    key = request.app[SETTINGS].api_key
    given = request.headers.get("Authorization", "")
    request.app[ACTIVITY].requests.append(
        {
            "path": request.path,
            "traceparent": request.headers.get("traceparent"),
            "requestId": request.headers.get("x-request-id"),
            "authorized": bool(given),
        }
    )
    if key and not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
        raise WireError(401, "The API key is missing or wrong.", code="invalid_api_key")
    return await handler(request)


async def _health(request: web.Request) -> web.Response:
    """Say that it serves, and which model embeds: the demo asks before it chooses one."""
    embedding = MEANING_MODEL if MEANING in request.app else EMBEDDING_MODEL
    return web.json_response({"status": "ok", "embedding": embedding, "why": request.app.get(NO_MEANING, "")})


async def _activity(request: web.Request) -> web.Response:
    activity = request.app[ACTIVITY]
    return web.json_response({"openStreams": activity.open_streams, "requests": list(activity.requests)})


async def _models(request: web.Request) -> web.Response:
    models = [CHAT_MODEL, SLOW_MODEL, EMBEDDING_MODEL, *([MEANING_MODEL] if MEANING in request.app else [])]
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "assistant-demo"} for name in models]
    return web.json_response({"object": "list", "data": data})


async def _chat(request: web.Request) -> web.StreamResponse:
    chat = decode(await request.read(), ChatRequest)
    if chat.model not in {CHAT_MODEL, SLOW_MODEL}:
        raise WireError(404, f"The model '{chat.model}' does not exist.", code="model_not_found", param="model")
    system = "\n".join(message.text for message in chat.messages if message.role in {"system", "developer"})
    question = next((message.text for message in reversed(chat.messages) if message.role == "user"), "")
    call = tool_call(chat, question)
    if call is not None:
        pieces, finish = tokens(f"{call.name} {call.arguments}"), "tool_calls"
    else:
        pieces, finish = _cut(document(chat, question) or answer(system, question), chat)
    prompt = sum(len(tokens(message.text)) for message in chat.messages)
    usage = {"prompt_tokens": prompt, "completion_tokens": len(pieces), "total_tokens": prompt + len(pieces)}
    base = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": chat.model}
    if chat.stream:
        settings = request.app[SETTINGS]
        pause = settings.slow_word_seconds if chat.model == SLOW_MODEL else settings.word_seconds
        with_usage = chat.stream_options is not None and chat.stream_options.include_usage
        deltas = call.deltas() if call else [{"content": piece} for piece in pieces]
        return await _stream(request, _events(base, deltas, finish, usage if with_usage else None), pause)
    message: dict[str, Any] = {"role": "assistant", "content": None if call else "".join(pieces), "refusal": None}
    if call:
        message["tool_calls"] = [call.wire]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return web.json_response({**base, "object": "chat.completion", "choices": [choice], "usage": usage})


def _cut(text: str, chat: ChatRequest) -> tuple[list[str], str]:
    """Return the answer's tokens as far as `stop` and the token limit let them through, and why they end."""
    ends = [text.find(stop) for stop in chat.stops if stop in text]
    pieces = tokens(text[: min(ends)] if ends else text)
    if chat.limit is not None and len(pieces) > chat.limit:
        return pieces[: chat.limit], "length"
    return pieces, "stop"


async def _events(
    base: dict[str, Any], deltas: list[dict[str, Any]], finish: str, usage: dict[str, int] | None
) -> AsyncIterator[bytes]:
    base = {**base, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**base, "choices": [choice], **({"usage": None} if usage else {})})

    yield chunk({"role": "assistant", "content": ""})
    for delta in deltas:
        yield chunk(delta)
    yield chunk({}, finish)
    if usage:
        yield event({**base, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


async def _stream(request: web.Request, events: AsyncIterator[bytes], pause: float) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    activity = request.app[ACTIVITY]
    activity.open_streams += 1
    try:
        await response.prepare(request)
        async with aclosing(events):  # type: ignore[type-var]
            async for part in events:
                await response.write(part)
                await asyncio.sleep(pause)
        await response.write_eof()
    finally:
        activity.open_streams -= 1
    return response


async def _embeddings(request: web.Request) -> web.Response:
    wanted = decode(await request.read(), EmbeddingRequest)
    of_meaning = wanted.model == MEANING_MODEL and MEANING in request.app
    if wanted.model != EMBEDDING_MODEL and not of_meaning:
        raise WireError(404, f"The model '{wanted.model}' does not exist.", code="model_not_found", param="model")
    texts = wanted.texts
    if not 1 <= len(texts) <= INPUTS_MAX or not all(texts):
        raise WireError(400, f"`input` must hold 1 to {INPUTS_MAX} texts, none of them empty.", param="input")
    vectors = await (_by_meaning(request.app[MEANING], wanted, texts) if of_meaning else _by_words(wanted, texts))
    data: list[dict[str, Any]] = []
    for index, vector in enumerate(vectors):
        packed = base64.b64encode(array.array("f", vector).tobytes()).decode()
        embedding = packed if wanted.encoding_format == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    count = sum(len(tokens(text)) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return web.json_response({"object": "list", "model": wanted.model, "data": data, "usage": usage})


async def _by_meaning(model: Multilingual, wanted: EmbeddingRequest, texts: list[str]) -> list[list[float]]:
    if wanted.dimensions not in {None, DIMENSIONS}:
        message = f"The model '{wanted.model}' makes vectors of {DIMENSIONS} numbers only."
        raise WireError(400, message, param="dimensions")
    if max(map(len, texts)) > CHARACTERS_MAX:
        raise WireError(400, f"A text has more than {CHARACTERS_MAX} characters.", param="input")
    return await model.embed(texts, wanted.input_type)


async def _by_words(wanted: EmbeddingRequest, texts: list[str]) -> list[list[float]]:
    vectors = []
    for index, text in enumerate(texts):
        if index % EMBED_BATCH == 0:
            await asyncio.sleep(0)
        vectors.append(embed(text, wanted.dimensions or DEFAULT_DIMENSIONS))
    return vectors


def main() -> None:
    """Serve until SIGTERM."""
    settings = ModelServerSettings()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    why = missing()
    log = logging.getLogger(__name__)
    log.info("offline stand-in model on port %d; embeddings of meaning: %s", settings.port, why or MEANING_MODEL)
    web.run_app(
        create_app(settings, why or load()),
        host=settings.host,
        port=settings.port,
        print=None,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=5,
    )


if __name__ == "__main__":
    main()
