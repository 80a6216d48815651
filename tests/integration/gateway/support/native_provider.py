"""Servers that speak the wires of Anthropic, Gemini, Bedrock and Cohere, as those record themselves.

What one does is said by the last message's text: `good`, `tool`, `tools` (two at once, after a text), `cut`, `hangs`,
`says-429` and so on. Usage is that of
the recorded answers in `tests/unit/gateway/wire/recorded`.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from served_app import served

KEY = "sk-native-0123456789abcdef"
AWS_ID, AWS_SECRET, AWS_TOKEN = "AKIDEXAMPLE0123456", "aws-secret-0123456789abcdef", "aws-session-0123456789abcdef"
WORDS = ["Hel", "lo ", "there", "."]
ARGUMENTS = ['{"city": ', '"Bern"}']
SECOND = ['{"zone":', ' "CET"}']  # arguments of the second call of `tools`

ANTHROPIC_USAGE = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 1000,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    "output_tokens": 15,
}
LOGPROBS = {
    "chosenCandidates": [{"token": "Hel", "logProbability": -0.1}],
    "topCandidates": [
        {"candidates": [{"token": "Hel", "logProbability": -0.1}, {"token": "Hal", "logProbability": -2.0}]}
    ],
}
GEMINI_USAGE = {
    "promptTokenCount": 9,
    "toolUsePromptTokenCount": 40,
    "cachedContentTokenCount": 5,
    "candidatesTokenCount": 3,
    "totalTokenCount": 115,
    "thoughtsTokenCount": 63,
}
BEDROCK_USAGE = {
    "inputTokens": 30,
    "outputTokens": 628,
    "totalTokens": 1758,
    "cacheReadInputTokens": 1000,
    "cacheWriteInputTokens": 100,
}
COHERE_USAGE = {
    "billed_units": {"input_tokens": 5, "output_tokens": 418},
    "tokens": {"input_tokens": 71, "output_tokens": 418},
}


@dataclass
class Native:
    """What was asked, and what is being answered."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    open: int = 0
    written: int = 0  # bytes of the last stream

    async def note(self, request: web.Request) -> dict[str, Any]:
        """Remember a request and return its body."""
        raw = await request.read()
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        body = json.loads(raw)
        self.bodies.append(body)
        return body


def _last_text(messages: list[dict[str, Any]]) -> str:
    content = messages[-1].get("content", messages[-1].get("parts"))
    if isinstance(content, str):
        return content
    return next((part["text"] for part in content if "text" in part), "good")


def sse(data: dict[str, Any], event: str | None = None) -> bytes:
    """Return one event."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def frame(event: str, data: dict[str, Any], kind: str = "event") -> bytes:
    """Return one message of AWS's event stream."""
    headers = b""
    what = ":event-type" if kind == "event" else ":exception-type"
    for name, value in ((what, event), (":content-type", "application/json"), (":message-type", kind)):
        headers += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    payload = json.dumps(data).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack(">I", binascii.crc32(prelude))
    message = prelude + headers + payload
    return message + struct.pack(">I", binascii.crc32(message))


# --- the events and answers of each family: (head, one per word, tail) ------------------------------------------


def calls(what: str) -> list[tuple[str, list[str]]]:
    """Return the tools that are called, with their arguments in pieces."""
    return {"tool": [("weather", ARGUMENTS)], "tools": [("weather", ARGUMENTS), ("time", SECOND)]}.get(what, [])


def anthropic_events(what: str) -> list[bytes]:
    """Messages, streamed."""
    usage = {**ANTHROPIC_USAGE, "output_tokens": 1}
    message = {"id": "msg_01", "type": "message", "role": "assistant", "content": [], "model": "claude-haiku-4-5"}
    found = [
        sse({"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}}, "message_start")
    ]
    blocks: list[tuple[dict, list[dict]]] = []
    if what == "thinks":
        deltas = [{"type": "thinking_delta", "thinking": "Hm."}, {"type": "signature_delta", "signature": "c2ln"}]
        blocks.append(({"type": "thinking", "thinking": ""}, deltas))
    for number, (name, parts) in enumerate(calls(what), 1):
        use = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}
        blocks.append((use, [{"type": "input_json_delta", "partial_json": part} for part in parts]))
    if what == "tools":
        blocks.insert(0, ({"type": "text", "text": ""}, [{"type": "text_delta", "text": WORDS[0]}]))
    if not calls(what):
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in WORDS]))
    for index, (start, deltas) in enumerate(blocks):
        found.append(
            sse({"type": "content_block_start", "index": index, "content_block": start}, "content_block_start")
        )
        steps = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found += [sse(step, "content_block_delta") for step in steps]
        found.append(sse({"type": "content_block_stop", "index": index}, "content_block_stop"))
    stop = {"stop_reason": "tool_use" if calls(what) else "end_turn", "stop_sequence": None}
    found.append(sse({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 15}}, "message_delta"))
    return [*found, sse({"type": "message_stop"}, "message_stop")]


def anthropic_answer(what: str, body: dict[str, Any]) -> dict[str, Any]:
    """Messages, whole."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "".join(WORDS)}]
    if called := calls(what):
        content = [{"type": "text", "text": WORDS[0]}] if what == "tools" else []
        content += [
            {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": json.loads("".join(parts))}
            for number, (name, parts) in enumerate(called, 1)
        ]
    if what == "json":
        content = [{"type": "text", "text": '{"city": "Bern"}'}]
        if body.get("tools"):
            content = [{"type": "tool_use", "id": "t", "name": body["tools"][0]["name"], "input": {"city": "Bern"}}]
    if what == "thinks":
        content.insert(0, {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"})
    stop = "tool_use" if content[-1]["type"] == "tool_use" else "end_turn"
    message = {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude-haiku-4-5"}
    return {**message, "content": content, "stop_reason": stop, "stop_sequence": None, "usage": ANTHROPIC_USAGE}


def gemini_parts(what: str) -> list[dict[str, Any]]:
    """Return the parts of an answer with calls."""
    called = [{"functionCall": {"name": name, "args": json.loads("".join(parts))}} for name, parts in calls(what)]
    return [{"text": WORDS[0]}, *called] if what == "tools" else called


def gemini_part(what: str, text: str) -> dict[str, Any]:
    """Return one part of an answer without calls."""
    if what == "json":
        return {"text": '{"city": "Bern"}'}
    return {"text": text}


def gemini_document(parts: list[dict[str, Any]], finish: str | None, usage: dict[str, int]) -> dict[str, Any]:
    """Return one answer, or one event."""
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash", "responseId": "r1"}


def gemini_events(what: str) -> list[bytes]:
    """The streamed answer; its statements of usage grow."""
    parts = gemini_parts(what) or [gemini_part(what, word) for word in (WORDS[:1] if what == "json" else WORDS)]
    early = {"promptTokenCount": 9, "candidatesTokenCount": 1, "totalTokenCount": 73, "thoughtsTokenCount": 63}
    found = []
    if what == "thinks":
        found.append(sse(gemini_document([{"text": "Hm.", "thought": True}], None, early)))
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        document = gemini_document([part], "STOP" if last else None, GEMINI_USAGE if last else early)
        found.append(sse(document))
    return found


def bedrock_events(what: str) -> list[bytes]:
    """Converse, streamed in frames."""
    found = [frame("messageStart", {"role": "assistant"})]
    blocks: list[tuple[dict[str, Any] | None, list[dict[str, Any]]]] = []
    if what == "thinks":
        blocks.append((None, [{"reasoningContent": {"text": "Hm."}}, {"reasoningContent": {"signature": "c2ln"}}]))
    if not calls(what):
        blocks.append((None, [{"text": word} for word in WORDS]))
    if what == "tools":
        blocks.append((None, [{"text": WORDS[0]}]))
    for number, (name, parts) in enumerate(calls(what), 1):
        start = {"toolUse": {"toolUseId": f"tooluse_{number}", "name": name}}
        blocks.append((start, [{"toolUse": {"input": part}} for part in parts]))
    for index, (start, deltas) in enumerate(blocks):
        place = {"contentBlockIndex": index}
        if start is not None:
            found.append(frame("contentBlockStart", {**place, "start": start}))
        found += [frame("contentBlockDelta", {**place, "delta": delta}) for delta in deltas]
        found.append(frame("contentBlockStop", place))
    found.append(frame("messageStop", {"stopReason": "tool_use" if calls(what) else "end_turn"}))
    return [*found, frame("metadata", {"usage": BEDROCK_USAGE, "metrics": {"latencyMs": 1275}})]


def bedrock_answer(what: str, body: dict[str, Any]) -> dict[str, Any]:
    """Converse, whole."""
    content: list[dict[str, Any]] = [{"text": "".join(WORDS)}]
    if what == "thinks":
        content.insert(0, {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}})
    called = calls(what)
    if what == "json":
        content = [{"text": '{"city": "Bern"}'}]
        if "toolConfig" in body:  # a model that has no schemas: LiteLLM makes a tool of it
            called = [(body["toolConfig"]["tools"][0]["toolSpec"]["name"], ARGUMENTS)]
    if called:
        content = [{"text": WORDS[0]}] if what == "tools" else []
    for number, (name, parts) in enumerate(called, 1):
        use = {"toolUseId": f"tooluse_{number}", "name": name, "input": json.loads("".join(parts))}
        content.append({"toolUse": use})
    stop = "tool_use" if called else "end_turn"
    message = {"role": "assistant", "content": content}
    return {"output": {"message": message}, "stopReason": stop, "usage": BEDROCK_USAGE, "metrics": {"latencyMs": 1}}


def cohere_events(what: str) -> list[bytes]:
    """Chat, version 2, streamed."""
    start = {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}
    found = [sse({"id": "c1", "type": "message-start", "delta": start}, "message-start")]
    if what == "tools":
        found.append(
            sse({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "A plan."}}}, "tool-plan-delta")
        )
    for index, (name, parts) in enumerate(calls(what)):
        call = {"id": f"call_{index + 1}", "type": "function", "function": {"name": name, "arguments": ""}}
        delta: dict[str, Any] = {"message": {"tool_calls": call}}
        found.append(sse({"type": "tool-call-start", "index": index, "delta": delta}, "tool-call-start"))
        for part in parts:
            delta = {"message": {"tool_calls": {"function": {"arguments": part}}}}
            found.append(sse({"type": "tool-call-delta", "index": index, "delta": delta}, "tool-call-delta"))
        found.append(sse({"type": "tool-call-end", "index": index}, "tool-call-end"))
    if not calls(what):
        delta = {"message": {"content": {"type": "text", "text": ""}}}
        found.append(sse({"type": "content-start", "index": 0, "delta": delta}, "content-start"))
        for word in WORDS:
            delta = {"message": {"content": {"text": word}}}
            found.append(sse({"type": "content-delta", "index": 0, "delta": delta}, "content-delta"))
        found.append(sse({"type": "content-end", "index": 0}, "content-end"))
    end = {"finish_reason": "TOOL_CALL" if calls(what) else "COMPLETE", "usage": COHERE_USAGE}
    return [*found, sse({"type": "message-end", "delta": end}, "message-end")]


def cohere_answer(what: str) -> dict[str, Any]:
    """Chat, version 2, whole."""
    message: dict[str, Any] = {"role": "assistant", "content": [{"type": "text", "text": "".join(WORDS)}]}
    if called := calls(what):
        functions = [{"name": name, "arguments": "".join(parts)} for name, parts in called]
        made = [{"id": f"call_{number}", "type": "function", "function": f} for number, f in enumerate(functions, 1)]
        message = {"role": "assistant", "tool_calls": made}
    finish = "TOOL_CALL" if called else "COMPLETE"
    return {"id": "c1", "finish_reason": finish, "message": message, "usage": COHERE_USAGE}


# --- serving ----------------------------------------------------------------------------------------------------

SAID = {
    "too-long": "prompt is too long: 210000 tokens > 200000 maximum",
    "filtered": "Output blocked by content filtering policy",
}


def refusal(what: str, family: str) -> web.Response | None:
    """Return an error as the family writes it, None when none is wanted."""
    status = {"too-long": 400, "filtered": 400, "echoes": 400}.get(what, 0)
    if what.startswith("says-"):
        status = int(what.removeprefix("says-"))
    if not status:
        return None
    keys = f"{AWS_SECRET} {AWS_TOKEN}" if family == "bedrock" else KEY
    said = SAID.get(what, f"said {status}" if what != "echoes" else f"bad key {keys}")
    body: dict[str, Any] = {"message": said}
    if family == "anthropic":
        body = {"type": "error", "error": {"type": "some_error", "message": said}}
    if family == "gemini":
        body = {"error": {"code": status, "message": said, "status": "SOME_STATUS"}}
    return web.json_response(body, status=status, headers={"Retry-After": "7"} if status == 429 else {})


async def play(state: Native, request: web.Request, what: str, events: list[bytes]) -> web.StreamResponse:
    """Send a stream, and do to it what is wanted."""
    frames = events[0][:1] == b"\x00"
    kind = "application/vnd.amazon.eventstream" if frames else "text/event-stream"
    answer = web.StreamResponse(headers={"Content-Type": kind})
    await answer.prepare(request)
    if what in {"endless", "flood"}:
        await never_end(state, answer, events, flood=what == "flood")
    if what in {"cut", "short", "stalls", "error-event"}:
        await break_off(request, answer, what, events)
        return answer
    if what == "bytewise":
        for byte in b"".join(events):
            await answer.write(bytes([byte]))
    elif what == "paced":
        for event in events:
            await answer.write(event)
            await asyncio.sleep(0.03)
    else:
        await answer.write(b"".join(events))
    return answer


async def never_end(state: Native, answer: web.StreamResponse, events: list[bytes], *, flood: bool) -> None:
    """Say the first word again and again; in a flood as fast as it is taken."""
    word = next(event for event in events if b"Hel" in event)
    await answer.write(b"".join(events[: events.index(word)]))
    state.written = 0
    while True:
        block = word.replace(b"Hel", b"Hel" + b"x" * 20_000) if flood else word
        await answer.write(block)
        state.written += len(block)
        await asyncio.sleep(0 if flood else 0.02)


async def break_off(request: web.Request, answer: web.StreamResponse, what: str, events: list[bytes]) -> None:
    """Stop after the first word, in one of many ways."""
    half = next(index for index, event in enumerate(events) if b"Hel" in event) + 1
    await answer.write(b"".join(events[:half]))
    await asyncio.sleep(0.05)
    if what == "error-event":
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        await answer.write(sse(error, "error"))
    if what == "cut":
        await answer.write(events[half][:20])
        await asyncio.sleep(0.05)
        request.transport.abort()
    if what == "stalls":
        await asyncio.sleep(60)


def signed(request: web.Request, body: bytes) -> bool:
    """Return whether Amazon would accept a request's signature."""
    given = request.headers.get("Authorization", "")
    names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    again = AWSRequest(request.method, str(request.url), data=body)
    for name in names:
        if name not in {"host", "x-amz-date", "x-amz-security-token"}:
            again.headers[name] = request.headers[name]
    signer = SigV4Auth(Credentials(AWS_ID, AWS_SECRET, AWS_TOKEN), "bedrock", "eu-central-1")
    again.context["timestamp"] = request.headers["X-Amz-Date"]
    again.headers["X-Amz-Date"] = request.headers["X-Amz-Date"]
    again.headers["X-Amz-Security-Token"] = AWS_TOKEN
    again.headers["Host"] = request.headers["Host"]
    expected = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    return given.endswith(f"Signature={expected}")


def vector(text: str) -> list[float]:
    """Return what stands for a text: the number at its end, if there is one."""
    return [0.5, float(text.rpartition(" ")[2]) if text[-1:].isdigit() else 0.25]


class _Routes:
    def __init__(self, state: Native) -> None:
        self.state = state

    async def _serve(
        self, request: web.Request, family: str, what: str, stream: list[bytes] | None, whole: dict[str, Any]
    ) -> web.StreamResponse:
        self.state.open += 1
        try:
            if (refused := refusal(what, family)) is not None:
                return refused
            if what == "hangs":
                await asyncio.sleep(60)
            if stream is not None:
                return await play(self.state, request, what, stream)
            if what == "garbage":
                return web.Response(body=b"<html>It works!</html>", content_type="text/html")
            return web.json_response(whole)
        finally:
            self.state.open -= 1

    async def anthropic(self, request: web.Request) -> web.StreamResponse:
        body = await self.state.note(request)
        if request.headers.get("x-api-key") != KEY or "anthropic-version" not in request.headers:
            return refusal("says-401", "anthropic")  # type: ignore[return-value]
        what = _last_text(body["messages"])
        events = anthropic_events(what) if body.get("stream") else None
        return await self._serve(request, "anthropic", what, events, anthropic_answer(what, body))

    async def gemini(self, request: web.Request) -> web.StreamResponse:
        body = await self.state.note(request)
        if request.headers.get("x-goog-api-key") != KEY:
            error = {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID"}
            return web.json_response({"error": error}, status=400)
        action = request.match_info["call"].rpartition(":")[2]
        if action == "batchEmbedContents":
            texts = [request["content"]["parts"][0]["text"] for request in body["requests"]]
            return web.json_response({"embeddings": [{"values": vector(text)} for text in texts]})
        what = _last_text(body["contents"])
        parts = gemini_parts(what) or [gemini_part(what, "".join(WORDS))]
        if what == "thinks":
            parts.insert(0, {"text": "Hm.", "thought": True})
        whole = gemini_document(parts, "STOP", GEMINI_USAGE)
        asked = body.get("generationConfig", {})
        if asked.get("responseLogprobs"):
            whole["candidates"][0]["logprobsResult"] = LOGPROBS
        first = whole["candidates"][0]
        whole["candidates"] = [{**first, "index": index} for index in range(asked.get("candidate_count", 1))]
        events = gemini_events(what) if action == "streamGenerateContent" else None
        return await self._serve(request, "gemini", what, events, whole)

    async def bedrock(self, request: web.Request) -> web.StreamResponse:
        body = await self.state.note(request)
        if not signed(request, await request.read()):
            return web.json_response({"message": "The request signature we calculated does not match"}, status=403)
        what = _last_text(body["messages"])
        events = bedrock_events(what) if request.match_info["action"] == "converse-stream" else None
        return await self._serve(request, "bedrock", what, events, bedrock_answer(what, body))

    async def cohere(self, request: web.Request) -> web.StreamResponse:
        body = await self.state.note(request)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"message": "invalid api token"}, status=401)
        what = _last_text(body["messages"])
        events = cohere_events(what) if body.get("stream") else None
        return await self._serve(request, "cohere", what, events, cohere_answer(what))

    async def cohere_embed(self, request: web.Request) -> web.StreamResponse:
        body = await self.state.note(request)
        vectors = [vector(text) for text in body["texts"]]
        meta = {"billed_units": {"input_tokens": 7}}
        return web.json_response({"id": "e", "embeddings": {"float": vectors}, "texts": body["texts"], "meta": meta})

    async def models(self, request: web.Request) -> web.StreamResponse:
        if KEY not in (request.headers.get("x-api-key"), request.headers.get("x-goog-api-key")):
            return web.json_response({"error": {"message": "bad key"}}, status=401)
        return web.json_response({"data": [{"id": "claude-haiku-4-5"}], "has_more": False})


@contextlib.asynccontextmanager
async def native_provider() -> AsyncIterator[Native]:
    """Serve all four on a free port of the loopback interface."""
    state = Native()
    routes = _Routes(state)
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/messages", routes.anthropic)
    app.router.add_post("/v1beta/models/{call}", routes.gemini)
    app.router.add_post("/model/{model}/{action}", routes.bedrock)
    app.router.add_post("/v2/chat", routes.cohere)
    app.router.add_post("/v2/embed", routes.cohere_embed)
    app.router.add_get("/v1/models", routes.models)
    app.router.add_get("/v1beta/models", routes.models)
    async with served(app) as origin:
        state.url = origin
        yield state
