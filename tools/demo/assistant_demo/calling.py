"""How the stand-in model calls tools and writes JSON: by rules on the question's words, the same each time.

A user's message makes it call one tool; what comes back from a tool is answered in words.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assistant_demo.filling import Schema, instance, quoted
from assistant_demo.text import words
from assistant_demo.wire import ChatRequest, Message, WireError

PIECE = 12  # characters of streamed arguments


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function."""

    identifier: str
    name: str
    arguments: str

    @property
    def wire(self) -> dict[str, Any]:
        """As a member of `tool_calls`."""
        return {
            "id": self.identifier,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }

    def deltas(self) -> list[dict[str, Any]]:
        """As the deltas of a stream: the name first, then the arguments in pieces."""
        pieces = [self.arguments[start : start + PIECE] for start in range(0, len(self.arguments), PIECE)]
        first = {**self.wire, "index": 0, "function": {"name": self.name, "arguments": ""}}
        rest = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
        return [{"tool_calls": [part]} for part in (first, *rest)]


def tool_call(chat: ChatRequest, question: str) -> Call | None:
    """Return the call that a request asks for, or None when it is to be answered in words.

    Raises:
        WireError: `tool_choice` names a function that is not among the tools.
    """
    functions = [tool.function for tool in chat.tools or [] if tool.type == "function" and tool.function is not None]
    choice = chat.tool_choice
    if not functions or choice == "none":
        return None
    since = _since_the_question(chat.messages)
    if isinstance(choice, Mapping):
        name = (choice.get("function") or {}).get("name")
        chosen = next((function for function in functions if function.name == name), None)
        if chosen is None:
            raise WireError(400, f"Tool choice '{name}' is not among the tools.", param="tool_choice")
    elif since and choice != "required":
        return None
    else:
        called = {call.function.name for message in since for call in message.tool_calls or []}
        left = [function for function in functions if function.name not in called] or functions
        known = set(words(question))
        # The first of those whose name and description share most words with the question.
        chosen = max(
            left, key=lambda function: len(known & set(words(f"{function.name} {function.description or ''}")))
        )
        named = next((function for function in left if function.name in question), None)
        chosen = named or chosen
    arguments = json.dumps(instance(chosen.parameters or {}, question), ensure_ascii=False)
    seed = f"{len(chat.messages)} {chosen.name} {arguments}".encode()
    return Call(f"call_{zlib.crc32(seed):08x}", chosen.name, arguments)


def document(chat: ChatRequest, question: str) -> str | None:
    """Return the JSON that `response_format` asks for, or None when it asks for none."""
    wanted = chat.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_schema" and wanted.json_schema is not None:
        schema: Schema = wanted.json_schema.schema or {}
    else:
        prompt = "\n".join(message.text for message in chat.messages)
        schema = _schema_in(prompt) or {"type": "object", "properties": {name: {} for name in quoted(question)}}
    return json.dumps(instance(schema, question), ensure_ascii=False)


def _schema_in(prompt: str) -> Schema | None:
    """Return the JSON schema that a prompt holds, as clients write it whose models know no `response_format`."""
    decoder = json.JSONDecoder()
    for start in (found.start() for found in re.finditer(r"\{", prompt[:100_000])):
        try:
            value, _ = decoder.raw_decode(prompt, start)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) and "properties" in value else None
    return None


def _since_the_question(messages: Sequence[Message]) -> list[Message]:
    """Return what came after the last message of a user."""
    last = max((place for place, message in enumerate(messages) if message.role == "user"), default=-1)
    return list(messages[last + 1 :])
