"""One call of each kind to each family, answered here, so that no tenant's first call is LiteLLM's first.

What LiteLLM imports, reads and builds only when a call needs it (up to half a second for one call) is there afterwards.
Runs where LiteLLM is loaded: beside the event loop of the gateway, on one of its own.
"""

from __future__ import annotations

import asyncio
import binascii
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from yarl import URL

from assistant_gateway.errors import GatewayError
from assistant_gateway.providers.catalog import Provider, Target, target
from assistant_gateway.providers.litellm_response import TranslatedAnswer

_KEY = "warm-up-no-key"
_AWS = '{"region": "us-east-1", "accessKeyId": "warm-up", "secretAccessKey": "warm-up-no-key"}'
# A model of each family, and one that embeds; which one does not matter.
MODELS = {
    "anthropic": "claude-haiku-4-5",
    "gemini": "gemini-2.5-flash",
    "bedrock": "anthropic.claude-haiku-4-5-20251001-v1:0",
    "cohere": "command-a-03-2025",
}
EMBEDDING = {"gemini": "gemini-embedding-001", "cohere": "embed-v4.0"}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
_PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
_TEXT = {"messages": [{"role": "user", "content": "a"}]}
_PARTS = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": _PIXEL}}]
_REQUESTS: tuple[dict[str, Any], ...] = (
    _TEXT,
    {**_TEXT, "tools": [{"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}]},
    {**_TEXT, "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": _SCHEMA}}},
    {**_TEXT, "reasoning_effort": "low", "max_tokens": 8000},
    {"messages": [{"role": "user", "content": _PARTS}]},
)

Send = Callable[..., Awaitable[TranslatedAnswer]]


class WarmUpUpstream:
    """Takes the place of the connections to providers: answers every call with what it was given."""

    def __init__(self) -> None:
        self.status, self.answer = 200, b""

    async def post(self, _target: Target, _url: URL, _body: bytes, _trace: Mapping[str, str]) -> TranslatedAnswer:
        """Answer."""
        pieces = [self.answer]

        async def pull() -> bytes:
            return pieces.pop() if pieces else b""

        answer = TranslatedAnswer("application/json", pull, lambda _error: None, lambda: None)
        answer.status = self.status
        return answer


def warm_up(send: Send, upstream: WarmUpUpstream) -> list[str]:
    """Make the calls, on an event loop of its own; return what went wrong, by family.

    Args:
        send: `Translator.send` of one whose connections are `upstream`.
    """
    return asyncio.run(_all(send, upstream))


async def _all(send: Send, upstream: WarmUpUpstream) -> list[str]:
    problems = []
    for kind, model in MODELS.items():
        to = target("warm-up", Provider(kind=kind, key_ref="none"), _AWS if kind == "bedrock" else _KEY)
        whole, streamed, embedded = _ANSWERS[kind]
        calls = [(200, whole, False, {"model": model, **request}) for request in _REQUESTS]
        calls += [(200, streamed, False, {"model": model, **_TEXT, "stream": True}), (400, b"{}", False, calls[0][3])]
        if kind in EMBEDDING:
            calls.append((200, embedded, True, {"model": EMBEDDING[kind], "input": ["a"]}))
        for upstream.status, upstream.answer, embedding, request in calls:
            fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in request.items()}
            try:
                answer = await send(to, embedding=embedding, fields=fields, trace={})
                while await answer.next():
                    pass
            except GatewayError as error:
                if upstream.status == 200 and error.code != "unsupported_parameter":
                    problems.append(f"{kind}: {error.message}")
    return problems


def _frame(event: str, data: object) -> bytes:
    """Return one message of AWS's event stream."""
    headers = b""
    for name, value in ((":event-type", event), (":content-type", "application/json"), (":message-type", "event")):
        headers += struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
    payload = msgspec.json.encode(data)
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack(">I", binascii.crc32(prelude))
    return prelude + headers + payload + struct.pack(">I", binascii.crc32(prelude + headers + payload))


_ANTHROPIC: dict[str, Any] = {
    "id": "a",
    "type": "message",
    "role": "assistant",
    "model": "a",
    "content": [{"type": "text", "text": "{}"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
_GEMINI: dict[str, Any] = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "{}"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
}
_BEDROCK: dict[str, Any] = {
    "output": {"message": {"role": "assistant", "content": [{"text": "{}"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
    "metrics": {"latencyMs": 1},
}
_COHERE: dict[str, Any] = {
    "id": "a",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "{}"}]},
    "finish_reason": "COMPLETE",
    "usage": {"billed_units": {"input_tokens": 1, "output_tokens": 1}},
}
_DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
_COHERE_DELTA = {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "a"}}}}


def _sse(*events: object) -> bytes:
    return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)


# Of each family: an answer, a stream, vectors.
_ANSWERS = {
    "anthropic": (msgspec.json.encode(_ANTHROPIC), _sse(_DELTA, {"type": "message_stop"}), b""),
    "gemini": (msgspec.json.encode(_GEMINI), _sse(_GEMINI), b'{"embeddings": [{"values": [0.5]}]}'),
    "bedrock": (
        msgspec.json.encode(_BEDROCK),
        _frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}})
        + _frame("messageStop", {"stopReason": "end_turn"}),
        b"",
    ),
    "cohere": (
        msgspec.json.encode(_COHERE),
        _sse(_COHERE_DELTA, {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}),
        b'{"id": "a", "embeddings": {"float": [[0.5]]}, "texts": ["a"], "meta": {"billed_units": {"input_tokens": 1}}}',
    ),
}
