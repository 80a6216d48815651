"""The platform's model provider as a process: it thinks for a while, answers, and keeps a bill of its own per model.

    python neighbour_provider.py PORT

`GET /billed` returns, per model, the calls that were answered and the tokens that their usage said.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from collections import Counter, defaultdict
from typing import Any

from aiohttp import web

THINKING_SECONDS = 0.3  # to the first byte, as a quick model takes
WORDS = 20
BILLED: defaultdict[str, Counter[str]] = defaultdict(Counter)


def embed(text: str, dimensions: int) -> list[float]:
    """Return a bag of hashed words: texts that share words are near each other."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [""]:
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % dimensions] += 1.0
    return vector


def bill(model: str, prompt: object, output: int) -> dict[str, int]:
    """Note one call and return its usage."""
    words = len(json.dumps(prompt).split())
    BILLED[model].update(calls=1, input=words, output=output)
    return {"prompt_tokens": words, "completion_tokens": output, "total_tokens": words + output}


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer with `WORDS` words, whole or word by word."""
    body = await request.json()
    model, messages = body["model"], body["messages"]
    await asyncio.sleep(THINKING_SECONDS)
    head = {"id": "c1", "created": 1, "model": model}
    if not body.get("stream"):
        message = {"role": "assistant", "content": " ".join(["word"] * WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = bill(model, messages, WORDS)
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)

    async def event(choices: list[dict[str, Any]], **more: Any) -> None:
        chunk = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
        await answer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    for _ in range(WORDS):
        await event([{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
        await asyncio.sleep(0.01)
    await event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    usage = bill(model, messages, WORDS)
    if (body.get("stream_options") or {}).get("include_usage"):
        await event([], usage=usage)
    await answer.write(b"data: [DONE]\n\n")
    return answer


async def embeddings(request: web.Request) -> web.StreamResponse:
    """Answer with vectors."""
    body = await request.json()
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    # Whether a model makes embeddings at all is tried with one word: the platform's own call, on no tenant's bill.
    usage = bill("trial" if texts == ["trial"] else body["model"], texts, 0)
    data = [
        {"object": "embedding", "index": index, "embedding": embed(str(text), body.get("dimensions", 16))}
        for index, text in enumerate(texts)
    ]
    answer = {"object": "list", "model": body["model"], "data": data}
    return web.json_response({**answer, "usage": {"prompt_tokens": usage["prompt_tokens"]}})


async def models(_request: web.Request) -> web.StreamResponse:
    """List what is asked here."""
    names = ("honest-chat", "honest-embed", "hostile-chat", "hostile-embed")
    return web.json_response({"object": "list", "data": [{"id": name} for name in names]})


async def billed(_request: web.Request) -> web.StreamResponse:
    """Return the bill."""
    return web.json_response({model: dict(found) for model, found in BILLED.items()})


def main() -> None:
    """Serve until killed."""
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/embeddings", embeddings)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/billed", billed)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
