"""A response as it comes into being: pieces of a chat completion in, items and events of the Responses API out.

Source of the format: OpenAI's API reference, `responses` and `responses-streaming`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec

from assistant_api.responses.schemas import ChatUsage, Completion, Said, ToolCall
from assistant_api.tokens import Tokens

MAX_CHARACTERS = 2 << 20  # of text and arguments together; what goes on beyond them fails
MAX_ITEMS = 128
Json = dict[str, Any]
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}

Sink = Callable[[str, Json], None]  # takes an event's type and its other members


class _Part:
    """One content part of the message: text with its annotations, or a refusal."""

    def __init__(self, kind: str, where: Json, say: Sink) -> None:
        self._name = "text" if kind == "output_text" else "refusal"
        self._kind, self._where, self._say = kind, where, say
        self._pieces: list[str] = []
        self._annotations: list[Json] = []
        say("content_part.added", {**where, "part": self.content()})

    def content(self) -> Json:
        """Return the part as far as it is known."""
        words = "".join(self._pieces)
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": words}
        return {"type": "output_text", "text": words, "annotations": list(self._annotations), "logprobs": []}

    def add(self, words: str) -> None:
        """Take the next words."""
        self._pieces.append(words)
        more: Json = {"logprobs": []} if self._kind == "output_text" else {}
        self._say(f"{self._kind}.delta", {**self._where, "delta": words, **more})

    def annotate(self, annotation: Json) -> None:
        """Take a citation."""
        number = len(self._annotations)
        self._annotations.append(annotation)
        self._say(
            "output_text.annotation.added",
            {**self._where, "annotation_index": number, "annotation": annotation},
        )

    def close(self) -> None:
        """Say that this was all."""
        content = self.content()
        more: Json = {"logprobs": []} if self._kind == "output_text" else {}
        self._say(f"{self._kind}.done", {**self._where, self._name: content[self._name], **more})
        self._say("content_part.done", {**self._where, "part": content})


class _MessageItem:
    """The answer's message."""

    def __init__(self, index: int, say: Sink) -> None:
        self.id = f"msg_{uuid4().hex}"
        self._index, self._say = index, say
        self._parts: dict[str, _Part] = {}
        say("output_item.added", {"output_index": index, "item": self.item("in_progress")})

    def item(self, status: str) -> Json:
        """Return the item as far as it is known."""
        content = [part.content() for part in self._parts.values()]
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content}

    def part(self, kind: str) -> _Part:
        """Return the part of a kind, begun when there is none."""
        if kind not in self._parts:
            where = {"item_id": self.id, "output_index": self._index, "content_index": len(self._parts)}
            self._parts[kind] = _Part(kind, where, self._say)
        return self._parts[kind]

    def close(self, status: str) -> Json:
        """Say that this was all; return the item."""
        for part in self._parts.values():
            part.close()
        item = self.item(status)
        self._say("output_item.done", {"output_index": self._index, "item": item})
        return item


class _CallItem:
    """A call of one of the caller's functions."""

    def __init__(self, index: int, call: ToolCall, say: Sink) -> None:
        self.id = f"fc_{uuid4().hex}"
        self._index, self._say = index, say
        self._call_id = call.id or f"call_{uuid4().hex}"
        self._name = (call.function and call.function.name) or ""
        self._pieces: list[str] = []
        say("output_item.added", {"output_index": index, "item": self.item("in_progress")})

    def item(self, status: str) -> Json:
        """Return the item as far as it is known."""
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": "".join(self._pieces),
        }

    def add(self, arguments: str) -> None:
        """Take the next piece of the arguments."""
        self._pieces.append(arguments)
        where = {"item_id": self.id, "output_index": self._index}
        self._say("function_call_arguments.delta", {**where, "delta": arguments})

    def close(self, status: str) -> Json:
        """Say that this was all; return the item."""
        item = self.item(status)
        where = {"item_id": self.id, "output_index": self._index}
        done = {"name": self._name, "arguments": item["arguments"]}
        self._say("function_call_arguments.done", {**where, **done})
        self._say("output_item.done", {"output_index": self._index, "item": item})
        return item


class Writer:
    """Writes one response.

    What comes is put into `response`; the events since they were last taken are what `take` returns.
    """

    def __init__(self, response: Json) -> None:
        self.response = response
        self.tokens: Tokens | None = None
        self.failed = False
        self._out: list[bytes] = []
        self._sequence = 0
        self._items: list[_MessageItem | _CallItem] = []
        self._message: _MessageItem | None = None
        self._calls: dict[int, _CallItem] = {}
        self._reason: object = None
        self._left = MAX_CHARACTERS

    def take(self) -> bytes:
        """Return the events since the last time, as server-sent events."""
        out, self._out = b"".join(self._out), []
        return out

    def begin(self) -> None:
        """Say that the response has begun."""
        self._say("created", {"response": self.response})
        self._say("in_progress", {"response": self.response})

    def feed(self, completion: Completion) -> None:
        """Take a completion, or a piece of one."""
        if completion.error is not None and not completion.choices:
            self.failed = True
        if completion.usage is not None:
            self.tokens = (completion.usage.prompt_tokens, completion.usage.completion_tokens)
            self.response["usage"] = _usage(completion.usage)
        for choice in completion.choices or ():
            if choice.index:
                continue
            if (said := choice.delta or choice.message) is not None:
                self._hear(said)
            self._reason = choice.finish_reason or self._reason

    def finish(self, error: str) -> None:
        """Come to the end; `error` is the sentence for a response that failed."""
        reason = _INCOMPLETE.get(self._reason) if isinstance(self._reason, str) else None
        status = "failed" if self.failed else "incomplete" if reason else "completed"
        item_status = "completed" if status == "completed" else "incomplete"
        self.response["output"] = [item.close(item_status) for item in self._items]
        self.response["status"] = status
        if status == "completed":
            self.response["completed_at"] = int(time.time())
        elif status == "incomplete":
            self.response["incomplete_details"] = {"reason": reason}
        else:
            self.response["error"] = {"code": "server_error", "message": error}

    def end(self) -> None:
        """Say the last thing, once the response is as it stays."""
        self._say(self.response["status"], {"response": self.response})

    def _hear(self, said: Said) -> None:
        if words := said.text():
            self._add("output_text", words)
        if said.refusal:
            self._add("refusal", said.refusal)
        for position, call in enumerate(said.tool_calls or ()):
            self._call(position if call.index is None else call.index, call)
        for annotation in said.annotations or ():
            if self._message is not None and (flat := _flat(annotation)):
                self._message.part("output_text").annotate(flat)

    def _add(self, kind: str, words: str) -> None:
        if self._fits(words):
            if self._message is None:
                self._message = _MessageItem(len(self._items), self._say)
                self._items.append(self._message)
            self._message.part(kind).add(words)

    def _call(self, index: int, call: ToolCall) -> None:
        item = self._calls.get(index)
        if item is None:
            if len(self._items) >= MAX_ITEMS:
                self.failed = True
                return
            item = self._calls[index] = _CallItem(len(self._items), call, self._say)
            self._items.append(item)
        if call.function and (arguments := call.function.arguments) and self._fits(arguments):
            item.add(arguments)

    def _fits(self, words: str) -> bool:
        self._left -= len(words)
        self.failed = self.failed or self._left < 0
        return not self.failed

    def _say(self, name: str, members: Json) -> None:
        name = f"response.{name}"
        event = {"type": name, "sequence_number": self._sequence, **members}
        self._sequence += 1
        self._out.append(b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(event)))


def _flat(annotation: Json) -> Json | None:
    """Return a citation as this API writes it: without the level that Chat Completions have."""
    cited = annotation.get("url_citation")
    if annotation.get("type") != "url_citation" or not isinstance(cited, dict):
        return None
    return {"type": "url_citation", **{name: cited.get(name) for name in ("start_index", "end_index", "url", "title")}}


def _usage(usage: ChatUsage) -> Json:
    cached = (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
    thought = (usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens) or 0
    total = usage.prompt_tokens + usage.completion_tokens
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": total if usage.total_tokens is None else usage.total_tokens,
    }
