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

DIMENSIONS = 256
WORD_SECONDS = 0.01
_PASSAGE = re.compile(r'<passage n="(\d+)"[^>]*>\n(.*?)\n</passage>', re.DOTALL)


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return a bag of hashed words as a vector: texts that share words are near each other."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()):
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % dimensions] += 1.0
    return vector


class FakeGateway:
    """Answers chats and embeddings; remembers what it was asked.

    Questions: `hang` never gets a first byte, `endless` streams for ever, `cut` breaks off, `limit` is refused with
    429; anything else is answered with the first passage, cited, or with the words of the question.
    """

    def __init__(self) -> None:
        self.chats: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.open_calls = 0
        self.tokens: set[str] = {"test-token"}
        self.url = ""

    def app(self) -> web.Application:
        """Return the server."""
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/embeddings", self._embeddings)
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
        texts = (await request.json())["input"]
        data = [{"index": index, "embedding": embed(text)} for index, text in enumerate(texts)]
        return web.json_response({"object": "list", "data": data})

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
        if question == "limit":
            error = {
                "error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
            }
            return web.json_response(
                error, status=429, headers={"retry-after": "3", "x-ratelimit-limit-requests": "60"}
            )
        words = _words(body, question)
        headers = {"x-assistant-model": "fake/model", "x-ratelimit-remaining-requests": "59"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": len(words), "total_tokens": len(words) + 1}
            answer = {"id": "c1", "object": "chat.completion", "created": 1, "model": "fake", "choices": [choice]}
            return web.json_response({**answer, "usage": usage}, headers=headers)
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **headers})
        await response.prepare(request)
        async for event in _events(words, body, endless=question == "endless"):
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
        runner = web.AppRunner(self.app(), shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            await runner.cleanup()


def _words(body: dict[str, Any], question: str) -> list[str]:
    first = body["messages"][0]
    passages = _PASSAGE.findall(first["content"]) if first["role"] == "system" else []
    if not passages:
        return f"You asked: {question}".split()
    number, text = passages[0]
    return [*text.split(), f"[{number}]"]


async def _events(words: list[str], body: dict[str, Any], *, endless: bool) -> AsyncIterator[bytes]:
    while True:
        for word in words:
            yield _event([{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}])
            await asyncio.sleep(WORD_SECONDS)
        if not endless:
            break
    yield _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _event([], usage={"prompt_tokens": 1, "completion_tokens": len(words), "total_tokens": len(words) + 1})
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
