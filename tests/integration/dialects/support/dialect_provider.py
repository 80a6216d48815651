"""Providers that each speak a dialect of the OpenAI wire, as `dialects.yaml` has it, under a path of their own.

The asked model's name says what becomes of the call: `answer`, `first` and `midway` (errors in a stream), `half` (a
stream that ends too early) or `refusal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from served_app import served

TABLE: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parents[1] / "dialects.yaml").read_text())
TEXT = "It takes 42 Nm [1]."
OUTCOMES = ("answer", "first", "midway", "half", "refusal")
DIMENSIONS = 256


@dataclass
class Providers:
    """What was asked, and where."""

    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)  # dialect and model


def events(name: str, part: str) -> bytes:
    """Return a part of a dialect's streams, with its line ends."""
    dialect = TABLE[name]
    text = dialect[part].rstrip("\n") + "\n\n"
    return text.replace("\n", dialect.get("ends", "\n")).encode()


def streamed(name: str, model: str) -> list[bytes]:
    """Return the pieces of a stream."""
    whole = events(name, "stream")
    end = TABLE[name].get("ends", "\n") * 2
    # Up to the end of the event that has the first text.
    begun = whole[: whole.index(end.encode(), whole.index(b"It takes 42 Nm [")) + len(end)]
    if model == "first":
        return [events(name, "first")]
    if model == "half":
        return [begun, whole[len(begun) : len(begun) + 25]]
    if model == "midway":
        return [begun, events(name, "midway")]
    # In pieces that end anywhere, as networks cut them.
    return [whole[at : at + 97] for at in range(0, len(whole), 97)]


def vector(text: str) -> list[float]:
    """Return numbers that stand for a text's words: texts with common words are alike."""
    numbers = [0.001] * DIMENSIONS
    for word in text.lower().split():
        numbers[hashlib.sha256(word.strip(".,:#?").encode()).digest()[0]] += 1.0
    return numbers


def _second_system_message(body: dict[str, Any]) -> bool:
    return any(message["role"] in {"system", "developer"} for message in body["messages"][1:])


async def _completions(providers: Providers, request: web.Request) -> web.StreamResponse:
    name, body = request.match_info["dialect"], await request.json()
    dialect, model = TABLE[name], body["model"]
    providers.asked.append((name, model))
    if {"max_tokens", "max_completion_tokens"} <= body.keys():
        return web.json_response({"error": {"message": "set one of the two limits"}}, status=422)
    if dialect.get("strict") and _second_system_message(body):
        return web.json_response({"error": {"message": "System message must be at the beginning."}}, status=400)
    if model == "refusal":
        refusal = dialect["refusal"]
        return web.Response(body=refusal["body"].encode(), status=refusal["status"], headers={"Retry-After": "7.5"})
    if not body.get("stream"):
        return web.Response(body=dialect["whole"].encode(), content_type="application/json")
    answer = web.StreamResponse(headers={"Content-Type": dialect.get("type", "text/event-stream")})
    await answer.prepare(request)
    for piece in streamed(name, model):
        await answer.write(piece)
        await asyncio.sleep(0)
    return answer


async def _embeddings(request: web.Request) -> web.StreamResponse:
    """Answer as Gemini does on the OpenAI wire: without the index that is zero, the last first."""
    body = await request.json()
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [
        {"object": "embedding", "embedding": vector(text), **({"index": index} if index else {})}
        for index, text in enumerate(texts)
    ]
    return web.json_response({"object": "list", "data": data[::-1], "model": body["model"]})


@contextlib.asynccontextmanager
async def providers() -> AsyncIterator[Providers]:
    """Serve all of them on a free port of the loopback interface."""
    state = Providers()

    async def completions(request: web.Request) -> web.StreamResponse:
        return await _completions(state, request)

    app = web.Application()
    app.router.add_post("/{dialect}/v1/chat/completions", completions)
    app.router.add_post("/{dialect}/v1/embeddings", _embeddings)
    app.router.add_get("/{dialect}/v1/models", _models)
    async with served(app) as origin:
        state.url = origin
        yield state


async def _models(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"object": "list", "data": [{"id": name} for name in (*OUTCOMES, "embed")]})
