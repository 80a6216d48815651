"""The hostile tenant's own model server: what it answers depends on the name of the model.

python neighbour_endpoint.py PORT
"""

from __future__ import annotations

import asyncio
import json
import sys

from aiohttp import web

MEBIBYTE = 2**20


def _chunk(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


ENDLESS = _chunk("x" * 2000)
BIG_ANSWER = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "x" * (30 * MEBIBYTE)}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
MANY_MODELS = json.dumps(
    {"object": "list", "data": [{"id": f"model-{number:06d}-{'x' * 100}"} for number in range(60_000)]}
).encode()
NESTED_USAGE = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hi"},"finish_reason":"stop"}],"usage":' + b"[" * 5000 + b"]" * 5000 + b"}"
)


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer as the model's name says."""
    body = await request.json()
    match body["model"]:
        case "big-answer":
            return web.Response(body=BIG_ANSWER, content_type="application/json")
        case "nested-usage":
            return web.Response(body=NESTED_USAGE, content_type="application/json")
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    while body["model"] == "endless":
        await answer.write(ENDLESS)
    await answer.write(_chunk("one word "))
    await asyncio.sleep(3600)  # `silent`
    return answer


async def models(_request: web.Request) -> web.StreamResponse:
    """List very many models."""
    return web.Response(body=MANY_MODELS, content_type="application/json")


def main() -> None:
    """Serve until killed."""
    app = web.Application(client_max_size=64 * MEBIBYTE)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
