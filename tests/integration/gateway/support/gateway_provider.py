"""A model provider that does what the asked model's name says: answers, refuses, hangs, breaks off."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from served_app import served

WORDS = ("Hello", " ", "world", ".")
USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
SECRET = "sk-platform-0123456789"  # the key that the catalogue's provider is given
Behaviour = Callable[["Provider", web.Request, dict], Awaitable[web.StreamResponse]]


def chunk(model: str, **fields: object) -> bytes:
    """Return one event as providers send it."""
    document = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, **fields}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def delta(model: str, text: str, finish: str | None = None) -> bytes:
    """Return one event with text."""
    return chunk(model, choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


@dataclass
class Provider:
    """What was asked, and where."""

    url: str = ""
    bodies: list[dict] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    peers: set[object] = field(default_factory=set)  # connections that chat requests came on
    open: int = 0  # answers that are being written now
    written: int = 0  # bytes that `flood` got rid of
    models: list[str] = field(default_factory=lambda: sorted(BEHAVIOURS))

    async def begin(self, request: web.Request) -> web.StreamResponse:
        """Send the head of a stream."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await answer.prepare(request)
        return answer


async def good(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Answer as a provider should."""
    model = body["model"]
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(WORDS)}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        document = {"id": "c1", "object": "chat.completion", "created": 1, "model": model, "choices": choices}
        return web.json_response({**document, "usage": USAGE})
    answer = await provider.begin(request)
    for word in WORDS:
        await answer.write(delta(model, word))
    await answer.write(delta(model, "", "stop"))
    if (body.get("stream_options") or {}).get("include_usage"):
        await answer.write(chunk(model, choices=[], usage=USAGE))
    await answer.write(b"data: [DONE]\n\n")
    return answer


CALLS = (("weather", ['{"city": ', '"Bern"}']), ("time", ['{"zone":', ' "CET"}']))  # with arguments in pieces
REASONING = {"completion_tokens_details": {"reasoning_tokens": 3}}


def _logprob(token: str) -> dict[str, object]:
    return {"token": token, "logprob": -0.1, "bytes": list(token.encode())}


async def features(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Use whatever the request asks for: several answers, tools, probabilities, thoughts, sound, fields of its own."""
    extra: dict[str, object] = {"system_fingerprint": f"fp_{body.get('seed')}", "usage": USAGE}
    if body.get("reasoning_effort"):
        extra["usage"] = {**USAGE, **REASONING}
    if "a_field_of_tomorrow" in body:
        extra["an_answer_of_tomorrow"] = body["a_field_of_tomorrow"]
    answers = range(body.get("n") or 1)
    if body.get("stream"):
        return await _features_streamed(provider, request, body, extra, list(answers))
    choices = []
    for index in answers:
        message: dict[str, object] = {"role": "assistant", "content": "".join(WORDS)}
        if body.get("tools"):
            functions = [{"name": name, "arguments": "".join(parts)} for name, parts in CALLS]
            calls = [{"id": f"call_{at}", "type": "function", "function": f} for at, f in enumerate(functions)]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        if (body.get("response_format") or {}).get("type") in {"json_schema", "json_object"}:
            message["content"] = '{"city": "Bern", "degrees": 21}'
        if body.get("reasoning_effort"):
            message["reasoning_content"] = "Hm."
        if "audio" in (body.get("modalities") or ()):
            message["audio"] = {"id": "audio_1", "data": "UklGRg==", "transcript": "Hello", "expires_at": 1}
        finish = "tool_calls" if body.get("tools") else "stop"
        choice: dict[str, object] = {"index": index, "message": message, "finish_reason": finish}
        if body.get("logprobs"):
            top = [_logprob(word) for word in WORDS[: body.get("top_logprobs") or 0]]
            choice["logprobs"] = {"content": [{**_logprob(word), "top_logprobs": top} for word in WORDS]}
        choices.append(choice)
    document = {"id": "c1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices}
    return web.json_response({**document, **extra})


def _deltas(body: dict) -> list[dict[str, object]]:
    """Return the pieces of one answer."""
    deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
    if body.get("reasoning_effort"):
        deltas.append({"reasoning_content": "Hm."})
    if not body.get("tools"):
        return deltas + [{"content": word} for word in WORDS]
    for at, (name, parts) in enumerate(CALLS):
        call = {"index": at, "id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [call]})
        deltas += [{"tool_calls": [{"index": at, "function": {"arguments": part}}]} for part in parts]
    return deltas


async def _features_streamed(
    provider: Provider, request: web.Request, body: dict, extra: dict[str, object], answers: list[int]
) -> web.StreamResponse:
    """Send the same in pieces, those of several answers in turns."""
    usage = extra.pop("usage")
    answer = await provider.begin(request)
    for said in _deltas(body):
        for index in answers:
            choice = {"index": index, "delta": said, "finish_reason": None}
            if body.get("logprobs") and said.get("content"):
                choice["logprobs"] = {"content": [{**_logprob(str(said["content"])), "top_logprobs": []}]}
            await answer.write(chunk(body["model"], choices=[choice], **extra))
    finish = "tool_calls" if body.get("tools") else "stop"
    for index in answers:
        choice = {"index": index, "delta": {}, "finish_reason": finish}
        await answer.write(chunk(body["model"], choices=[choice], **extra))
    if (body.get("stream_options") or {}).get("include_usage"):
        await answer.write(chunk(body["model"], choices=[], usage=usage, **extra))
    await answer.write(b"data: [DONE]\n\n")
    return answer


async def endless(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Never come to an end."""
    answer = await provider.begin(request)
    while True:
        await answer.write(delta(body["model"], "again "))
        await asyncio.sleep(0.02)


async def paced(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Take a second over a good answer."""
    answer = await provider.begin(request)
    for _ in range(20):
        await answer.write(delta(body["model"], "word "))
        await asyncio.sleep(0.05)
    await answer.write(delta(body["model"], "", "stop") + b"data: [DONE]\n\n")
    return answer


async def numbered(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Take four seconds over twenty numbered words."""
    answer = await provider.begin(request)
    for number in range(20):
        await answer.write(delta(body["model"], f"{number} "))
        await asyncio.sleep(0.2)
    await answer.write(delta(body["model"], "", "stop") + b"data: [DONE]\n\n")
    return answer


async def slow_bytes(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Send a good answer byte by byte."""
    answer = await provider.begin(request)
    for byte in b"".join(delta(body["model"], word) for word in WORDS) + delta(body["model"], "", "stop"):
        await answer.write(bytes([byte]))
    await answer.write(b"data: [DONE]\n\n")
    return answer


async def flood(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Send events as fast as they are taken, without an end; `written` tells how many bytes were."""
    answer = await provider.begin(request)
    event = delta(body["model"], "x" * 2000)
    while True:
        await answer.write(event)
        provider.written += len(event)


async def counts_first(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Send usage before any word, and each event by itself."""
    answer = await provider.begin(request)
    events = [chunk(body["model"], choices=[], usage=USAGE), *(delta(body["model"], word) for word in WORDS)]
    for event in (*events, delta(body["model"], "", "stop"), b"data: [DONE]\n\n"):
        await answer.write(event)
        await asyncio.sleep(0.02)
    return answer


async def cut(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Break off in the middle of an event."""
    answer = await provider.begin(request)
    await answer.write(delta(body["model"], "Hel") + delta(body["model"], "lo")[:20])
    await asyncio.sleep(0.05)
    request.transport.abort()
    return answer


async def short(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """End in good order but too early."""
    answer = await provider.begin(request)
    await answer.write(delta(body["model"], "Hel"))
    return answer


async def no_done(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Finish the answer without the word that says so."""
    answer = await provider.begin(request)
    await answer.write(delta(body["model"], "Hello", "stop"))
    return answer


async def whole_then_cut(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Finish the answer, then lose the connection."""
    answer = await no_done(provider, request, body)
    await answer.write(b": bye")
    await asyncio.sleep(0.05)
    request.transport.abort()
    return answer


async def whole_then_silent(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Finish the answer, and leave the connection open."""
    answer = await no_done(provider, request, body)
    await asyncio.sleep(60)
    return answer


async def stalls(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Fall silent after the first event."""
    answer = await provider.begin(request)
    await answer.write(delta(body["model"], "Hel"))
    await asyncio.sleep(60)
    return answer


async def fails_midway(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Send an error as an event."""
    answer = await provider.begin(request)
    await answer.write(delta(body["model"], "Hel"))
    await answer.write(b'data: {"error": {"message": "overloaded", "type": "server_error", "code": null}}\n\n')
    return answer


async def error_first(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Begin a stream with signs of life, and send an error in place of an answer."""
    if not body.get("stream"):
        return await hidden_error(provider, request, body)
    answer = await provider.begin(request)
    await answer.write(b": wait\n\n" + chunk(body["model"], choices=[{"index": 0, "delta": {"role": "assistant"}}]))
    await asyncio.sleep(0.02)
    await answer.write(b'data: {"error": {"message": "overloaded", "type": "server_error", "code": null}}\n\n')
    return answer


async def silent(provider: Provider, request: web.Request, _body: dict) -> web.StreamResponse:
    """Begin an answer and say nothing."""
    await provider.begin(request)
    await asyncio.sleep(60)
    raise AssertionError("not reached")


async def empty(provider: Provider, request: web.Request, _body: dict) -> web.StreamResponse:
    """Begin an answer and end it."""
    return await provider.begin(request)


async def recovers(provider: Provider, request: web.Request, body: dict) -> web.StreamResponse:
    """Ask for a short pause once, then answer."""
    if sum(earlier["model"] == body["model"] for earlier in provider.bodies) == 1:
        return web.json_response({"error": {"message": "busy"}}, status=503, headers={"Retry-After": "0.1"})
    return await good(provider, request, body)


async def hangs(_provider: Provider, _request: web.Request, _body: dict) -> web.StreamResponse:
    """Never begin to answer."""
    await asyncio.sleep(60)
    raise AssertionError("not reached")


async def garbage(_provider: Provider, _request: web.Request, _body: dict) -> web.StreamResponse:
    """Answer 200 with something else."""
    return web.Response(body=b"<html>It works!</html>", content_type="text/html")


async def hidden_error(_provider: Provider, _request: web.Request, _body: dict) -> web.StreamResponse:
    """Answer 200 with an error inside."""
    return web.json_response({"error": {"message": "no capacity"}})


async def huge(_provider: Provider, request: web.Request, _body: dict) -> web.StreamResponse:
    """Send far more than anyone wants."""
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(request)
    for _ in range(1000):
        await answer.write(b" " * 100_000)
    return answer


async def huge_event(provider: Provider, request: web.Request, _body: dict) -> web.StreamResponse:
    """Send an event that does not end."""
    answer = await provider.begin(request)
    await answer.write(b"data: ")
    for _ in range(1000):
        await answer.write(b"x" * 100_000)
    return answer


async def redirects(provider: Provider, _request: web.Request, _body: dict) -> web.StreamResponse:
    """Point elsewhere."""
    raise web.HTTPTemporaryRedirect(provider.url + "/chat/completions")


async def echoes(_provider: Provider, request: web.Request, _body: dict) -> web.StreamResponse:
    """Repeat the key in an error."""
    return web.json_response({"error": {"message": f"bad: {request.headers['Authorization']}"}}, status=400)


def status(code: int, **headers: str) -> Behaviour:
    """Return a behaviour that refuses with an OpenAI envelope."""

    async def refuse(_provider: Provider, _request: web.Request, _body: dict) -> web.StreamResponse:
        error = {"message": f"said {code}", "type": "x", "param": "messages", "code": "context_length_exceeded"}
        return web.json_response({"error": error}, status=code, headers=headers)

    return refuse


BEHAVIOURS: dict[str, Behaviour] = {
    "good": good,
    "features": features,
    "endless": endless,
    "paced": paced,
    "numbered": numbered,
    "slow-bytes": slow_bytes,
    "flood": flood,
    "counts-first": counts_first,
    "cut": cut,
    "short": short,
    "no-done": no_done,
    "whole-then-cut": whole_then_cut,
    "whole-then-silent": whole_then_silent,
    "stalls": stalls,
    "fails-midway": fails_midway,
    "error-first": error_first,
    "hangs": hangs,
    "silent": silent,
    "empty": empty,
    "recovers": recovers,
    "garbage": garbage,
    "hidden-error": hidden_error,
    "huge": huge,
    "huge-event": huge_event,
    "redirects": redirects,
    "echoes": echoes,
    "says-400": status(400),
    "says-401": status(401),
    "says-404": status(404),
    "says-402": status(402),
    "says-429": status(429, **{"Retry-After": "7"}),
    "says-500": status(500),
    "says-503": status(503, **{"Retry-After": "3"}),
}


def _vector(text: object, body: dict) -> list[float] | str:
    """Return what stands for a text: its length, and halves; packed if that is wanted."""
    numbers = [float(len(str(text))), *[0.5] * (body.get("dimensions", 4) - 1)]
    if body.get("encoding_format") != "base64":
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@contextlib.asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    """Serve on a free port of the loopback interface."""
    state = Provider()

    async def completions(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        state.bodies.append(body)
        state.headers.append(dict(request.headers))
        state.peers.add(request.transport.get_extra_info("peername"))
        state.open += 1
        try:
            return await BEHAVIOURS[body["model"]](state, request, body)
        finally:
            state.open -= 1

    async def embeddings(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        state.bodies.append(body)
        state.headers.append(dict(request.headers))
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        vectors = [
            {"object": "embedding", "index": index, "embedding": _vector(text, body)}
            for index, text in enumerate(inputs)
        ]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return web.json_response({"object": "list", "model": body["model"], "data": vectors, "usage": usage})

    async def models(request: web.Request) -> web.StreamResponse:
        state.headers.append(dict(request.headers))
        if request.headers.get("Authorization") == "Bearer wrong-key":
            return web.json_response({"error": {"message": "bad key"}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": name} for name in state.models]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", completions)
    app.router.add_post("/v1/embeddings", embeddings)
    app.router.add_get("/v1/models", models)
    async with served(app) as origin:
        state.url = f"{origin}/v1"
        yield state
