"""A small gateway: the wire of the real one, with behaviour that a test chooses by the words of its question."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web
from served_app import served

DIMENSIONS = 256
WORD_SECONDS = 0.01
_PASSAGE = re.compile(r'<passage n="(\d+)"[^>]*>\n(.*?)\n</passage>', re.DOTALL)

# What the gateway refuses with, and the headers that go with it.
REFUSALS: dict[str, tuple[int, dict[str, str]]] = {
    "rate_limit_exceeded": (429, {"retry-after": "3", "retry-after-ms": "2800", "x-ratelimit-limit-requests": "60"}),
    "tokens_exhausted": (
        429,
        {"retry-after": "40", "retry-after-ms": "39500"}
        | {"x-ratelimit-limit-tokens": "2000", "x-ratelimit-remaining-tokens": "3"},
    ),
    "budget_exhausted": (
        429,
        {"retry-after": "86400", "retry-after-ms": "86400000", "x-should-retry": "false"}
        | {"x-budget-limit": "0.010000", "x-budget-remaining": "0.000100", "x-budget-currency": "USD"},
    ),
    "price_unknown": (403, {}),
    "not_limitable": (400, {}),
    "limits_unavailable": (503, {"retry-after": "1"}),
}
LEFT = {
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "1990",
    "x-budget-limit": "0.010000",
    "x-budget-remaining": "0.009000",
    "x-budget-currency": "USD",
}
_SUMS = {
    "requests": 2,
    "input_tokens": 20,
    "cached_tokens": 0,
    "output_tokens": 9,
    "reasoning_tokens": 0,
    "cost": "0.000380",
    "currency": "USD",
    "estimated_requests": 0,
    "estimated_cost": "0.000000",
}
REPORT = {
    "object": "usage",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-12-01T00:00:00Z",
    "time_zone": "UTC",
    "group_by": ["user"],
    "as_of": "2026-11-24T12:00:00Z",
    "data": [{"user": "=cmd|' /C calc'!A0", **_SUMS}],
    "totals": [_SUMS],
    "pending": {"totals": [_SUMS], "complete": True},
    "next_cursor": None,
}


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return a bag of hashed words as a vector: texts that share words are near each other."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()):
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % dimensions] += 1.0
    return vector


class FakeGateway:
    """Answers chats and embeddings; remembers what it was asked.

    Questions: `hang` never gets a first byte, `endless` streams for ever, `cut` breaks off, and the codes in `REFUSALS`
    are refused with them; with tools the first one is called, with a JSON schema an object is given; anything else is
    answered with the first passage, cited, or with the words of the question. Embeddings are refused with `embedding`.
    """

    def __init__(self) -> None:
        self.chats: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.open_calls = 0
        self.users: list[str | None] = []  # of calls for embeddings
        self.embedding = ""  # a code of REFUSALS
        self.usage: list[list[tuple[str, str]]] = []
        self.tokens: set[str] = {"test-token"}
        self.url = ""

    def app(self) -> web.Application:
        """Return the server."""
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_get("/v1/usage", self._usage)
        return app

    def _identify(self, request: web.Request) -> None:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise web.HTTPUnauthorized(
                text=json.dumps({"error": {"message": "bad token", "code": "invalid_api_key"}}),
                content_type="application/json",
            )

    async def _models(self, request: web.Request) -> web.Response:
        self._identify(request)
        return web.json_response({"object": "list", "data": []})

    async def _embeddings(self, request: web.Request) -> web.Response:
        self._identify(request)
        self.users.append(request.headers.get("x-assistant-user"))
        if self.embedding:
            return _refused(self.embedding)
        texts = (await request.json())["input"]
        data = [{"index": index, "embedding": embed(text)} for index, text in enumerate(texts)]
        return web.json_response({"object": "list", "data": data})

    async def _usage(self, request: web.Request) -> web.Response:
        self._identify(request)
        self.usage.append(list(request.query.items()))
        if request.query.get("from") == "yesterday":
            error = {"message": "no", "type": "invalid_request_error", "param": "from", "code": "invalid_date"}
            return web.json_response({"error": error}, status=400)
        return web.json_response(REPORT)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self._identify(request)
        body = await request.json()
        self.chats.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.open_calls += 1
        try:
            return await self._answer(request, body)
        finally:
            self.open_calls -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        question = body["messages"][-1]["content"]
        if question == "hang":
            await asyncio.Event().wait()
        if question in REFUSALS:
            return _refused(question)
        headers = {"x-assistant-model": "fake/model", **LEFT}
        call = _tool_call(body)
        if call is None and body.get("response_format", {}).get("type") == "json_schema":
            words = [json.dumps({"city": "Paris", "degrees": 21})]
        else:
            words = [] if call else _words(body, question)
        if not body.get("stream"):
            message = {"role": "assistant", "content": None if call else " ".join(words)}
            if call:
                message["tool_calls"] = [call]
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if call else "stop"}
            answer = {"id": "c1", "object": "chat.completion", "created": 1, "model": "fake", "choices": [choice]}
            return web.json_response({**answer, "usage": _spent(words)}, headers=headers)
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **headers})
        await response.prepare(request)
        async for event in _events(words, body, call, endless=question == "endless"):
            await response.write(event)
            if question == "cut":
                assert request.transport is not None
                request.transport.close()
                break
        return response

    @contextmanager
    def running(self) -> Iterator[FakeGateway]:
        """Serve in a thread of its own, so that blocking clients can be tested too."""
        loop = asyncio.new_event_loop()
        started, stop = threading.Event(), asyncio.Event()

        async def serve() -> None:
            async with self.served():
                started.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        try:
            if not started.wait(10):
                raise RuntimeError("the fake gateway did not start")
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            loop.close()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Serve in the running loop."""
        async with served(self.app()) as origin:
            self.url = origin
            yield


def _words(body: dict[str, Any], question: str) -> list[str]:
    first = body["messages"][0]
    passages = _PASSAGE.findall(first["content"]) if first["role"] == "system" else []
    if not passages:
        return f"You asked: {question}".split()
    number, text = passages[0]
    return [*text.split(), f"[{number}]"]


def _tool_call(body: dict[str, Any]) -> dict[str, Any] | None:
    """A call of the first tool, when the user has just spoken."""
    if not body.get("tools") or body["messages"][-1]["role"] != "user":
        return None
    function = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Paris"}'}
    return {"id": "call_1", "type": "function", "function": function}


def _refused(code: str) -> web.Response:
    status, headers = REFUSALS[code]
    error = {"message": f"Refused: {code}.", "type": "rate_limit_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


def _spent(words: list[str]) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": len(words), "total_tokens": len(words) + 1}


async def _events(
    words: list[str], body: dict[str, Any], call: dict[str, Any] | None, *, endless: bool
) -> AsyncIterator[bytes]:
    if call:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        first = {"index": 0, **call, "function": {"name": name, "arguments": ""}}
        yield _event([{"index": 0, "delta": {"role": "assistant", "tool_calls": [first]}, "finish_reason": None}])
        for part in (arguments[:5], arguments[5:]):
            delta = {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
            yield _event([{"index": 0, "delta": delta, "finish_reason": None}])
    while True:
        for word in words:
            yield _event([{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}])
            await asyncio.sleep(WORD_SECONDS)
        if not endless:
            break
    yield _event([{"index": 0, "delta": {}, "finish_reason": "tool_calls" if call else "stop"}])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _event([], usage=_spent(words))
    yield b"data: [DONE]\n\n"


def _event(choices: list[dict[str, Any]], **members: Any) -> bytes:
    chunk = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": choices,
        **members,
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
