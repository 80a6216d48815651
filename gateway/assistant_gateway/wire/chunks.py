"""What one event of a provider's stream says: text, an end, an error, in the forms that providers have for each.

The OpenAI wire is what its clients read, so an answer has to look like OpenAI's whatever its provider writes: text is
text and not a list of parts, a choice that goes on says `null`, and half an answer does not look like a whole one.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from assistant_gateway.wire.decoding import LARGEST_DECODED, UNREADABLE
from assistant_http.events import Event

# How choices end that were broken off: SGLang's, vLLM's, OpenRouter's, DeepSeek's and others' words.
BROKEN = frozenset(
    {"error", "abort", "aborted", "cancel", "cancelled", "canceled", "failed", "insufficient_system_resource"}
    | {"timeout", "interrupted", "network_error", "server_error", "internal_error"}
)
# What is looked at of one event or answer; nobody asks for more choices than that, and nobody writes more parts.
MOST_CHOICES = 200
MOST_PARTS = 1000
_OPEN_FINISH = re.compile(rb'("finish_reason"\s*:\s*)""')
_IN_PARTS = re.compile(rb'"content"\s*:\s*\[')
_NOTHING = frozenset({b"null", b'""', b"[]", b"{}"})
_NO_OUTPUT = frozenset({"role", "index", "name", "id", "type"})

_Members = dict[str, msgspec.Raw]
_members = msgspec.json.Decoder(_Members)
_choices = msgspec.json.Decoder(list[_Members])
_value = msgspec.json.Decoder(object)


class Said(NamedTuple):
    """What an event says of the answer's choices, by their index."""

    written: frozenset[int] = frozenset()  # those that got output
    going: frozenset[int] = frozenset()  # those that were named and have not ended
    ended: frozenset[int] = frozenset()
    broken: str = ""  # how a choice was broken off


def document_of(data: bytes) -> _Members | None:
    """Return an event's or answer's members, undecoded; None where it is no JSON object.

    An array around it is taken off: Gemini's errors on the OpenAI wire have one.
    """
    try:
        return _members.decode(data)
    except UNREADABLE:
        pass
    if len(data) > LARGEST_DECODED:
        return None
    try:
        found = _choices.decode(data)
    except UNREADABLE:
        return None
    return found[0] if len(found) == 1 else None


def said(document: _Members) -> Said:
    """Return what an event says of its choices; nothing where they are not readable."""
    try:
        found = _choices.decode(document["choices"])
    except (KeyError, *UNREADABLE):
        return Said()
    written, going, ended, broken = set(), set(), set(), ""
    for position, choice in enumerate(found[:MOST_CHOICES]):
        index = _index(choice.get("index"), position)
        if _has_output(choice):
            written.add(index)
        finish = finish_of(choice)
        if finish.lower() in BROKEN:
            broken = finish
        elif finish:
            ended.add(index)
        else:
            going.add(index)
    return Said(frozenset(written), frozenset(going), frozenset(ended), broken)


def finish_of(choice: _Members) -> str:
    """Return how a choice ended, empty where it has not: nothing, null and empty text all say so."""
    raw = bytes(choice.get("finish_reason", b"null"))
    if raw in _NOTHING or len(raw) > 100:
        return ""
    try:
        value = _value.decode(raw)
    except UNREADABLE:
        return ""
    return str(value).strip() if value else ""


def _index(raw: msgspec.Raw | None, position: int) -> int:
    try:
        value = _value.decode(raw) if raw is not None and len(bytes(raw)) < 20 else None
    except UNREADABLE:
        value = None
    return value if isinstance(value, int) else position


def _has_output(choice: _Members) -> bool:
    """Whether a choice has text, reasoning, a tool call: anything a model wrote."""
    if bytes(choice.get("text", b"null")) not in _NOTHING:
        return True
    try:
        inner = _members.decode(choice.get("delta") or choice.get("message") or b"{}")
    except UNREADABLE:
        return False
    return any(name not in _NO_OUTPUT and bytes(value) not in _NOTHING for name, value in inner.items())


def error_of(event: Event, document: _Members | None) -> bytes | None:
    """Return the error in an event, as JSON or text; None where it is none."""
    if document is None:
        return event.data if event.name == b"error" and event.data else _field_error(event)
    if _filled(document.get("error")):
        return event.data
    if event.name == b"error":
        return event.data
    if "choices" not in document:
        return event.data if _is_error(document) else None
    return choice_error(document)


def choice_error(document: _Members) -> bytes | None:
    """Return the error that stands inside a choice that was broken off (OpenRouter's)."""
    if b'"error"' not in bytes(document["choices"]):
        return None
    try:
        found = _choices.decode(document["choices"])
    except UNREADABLE:
        return None
    for choice in found[:MOST_CHOICES]:
        if _filled(choice.get("error")):
            return msgspec.json.encode({"error": choice["error"]})
    return None


def _field_error(event: Event) -> bytes | None:
    """Return an error that is no data: in a field of that name (llama.cpp's), or as bare JSON (Ollama's)."""
    for name, value in event.others:
        if name == b"error" and value:
            return value
        if name.startswith(b"{"):
            line = name + b":" + value
            document = document_of(line)
            if document is not None and (_filled(document.get("error")) or _is_error(document)):
                return line
    return None


def _is_error(document: _Members) -> bool:
    """Whether an object without choices is an error: FastAPI's, vLLM's and Mistral's, Cloudflare's, Anthropic's."""
    if any(_filled(document.get(name)) for name in ("detail", "errors")):
        return True
    kinds = {bytes(document.get(name, b"")) for name in ("object", "type")}
    if b'"error"' in kinds:
        return True
    return _filled(document.get("message")) and any(name in document for name in ("code", "status", "status_code"))


def _filled(raw: msgspec.Raw | None) -> bool:
    return raw is not None and bytes(raw) not in _NOTHING | {b"false"}


def tidied(data: bytes) -> bytes:
    """Return the data of an event as clients of OpenAI read it."""
    if _OPEN_FINISH.search(data):
        data = _OPEN_FINISH.sub(rb"\1null", data)
    return flattened(data if b'"delta"' in data else _with_deltas(data), "delta")


def _with_deltas(data: bytes) -> bytes:
    """Return an event whose choices have a delta: clients read it unasked, and Azure's filter sends some without."""
    try:
        document = _members.decode(data)
        choices = _choices.decode(document["choices"])
    except (KeyError, *UNREADABLE):
        return data
    if not 0 < len(choices) <= MOST_CHOICES or len(data) > LARGEST_DECODED:
        return data
    document["choices"] = msgspec.Raw(msgspec.json.encode([{**choice, "delta": {}} for choice in choices]))
    return msgspec.json.encode(document)


def flattened(data: bytes, place: str) -> bytes:
    """Return an event or answer whose text is text: content as a list of parts is joined, thoughts beside it.

    Args:
        data: JSON.
        place: where the content is: "delta" or "message".
    """
    if len(data) > LARGEST_DECODED or not _IN_PARTS.search(data):
        return data
    try:
        document = _members.decode(data)
        choices = _choices.decode(document["choices"])
        if len(choices) > MOST_CHOICES:
            return data
        changed = [choice for choice in choices if place in choice and _flatten(choice, place)]
    except (KeyError, *UNREADABLE):
        return data
    if not changed:
        return data
    document["choices"] = msgspec.Raw(msgspec.json.encode(choices))
    return msgspec.json.encode(document)


def _flatten(choice: _Members, place: str) -> bool:
    """Join the parts of one choice; return whether there was anything to join."""
    inner = _members.decode(choice[place])
    if bytes(inner.get("content", b"")).lstrip()[:1] != b"[":
        return False
    texts, thoughts = [], []
    parts: list[Any] = _value.decode(inner["content"])  # type: ignore[assignment]  # it is a list
    if len(parts) > MOST_PARTS:
        return False
    for part in parts:
        text, thought = _texts(part)
        texts.append(text)
        thoughts.append(thought)
    inner["content"] = msgspec.Raw(msgspec.json.encode("".join(texts)))
    if any(thoughts) and not _filled(inner.get("reasoning_content")):
        inner["reasoning_content"] = msgspec.Raw(msgspec.json.encode("".join(thoughts)))
    choice[place] = msgspec.Raw(msgspec.json.encode(inner))
    return True


def _texts(part: Any) -> tuple[str, str]:
    """Return the text of a part of content, and its thoughts."""
    if isinstance(part, str):
        return part, ""
    if not isinstance(part, dict):
        return "", ""
    thinking = part.get("thinking") or part.get("reasoning")
    if thinking:
        inner = thinking if isinstance(thinking, list) else [thinking]
        return "", "".join("".join(_texts(piece)) for piece in inner[:1000])
    text = part.get("text") or part.get("content") or ""
    return (text, "") if isinstance(text, str) else ("", "")
