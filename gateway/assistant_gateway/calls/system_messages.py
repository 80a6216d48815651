"""One system message where the caller, the assistant and its knowledge each have one.

Chat templates of many open models take a single system message, at the beginning, and their servers refuse a request
with a second one. Those that stand at the beginning say the same in one message to every model, so they are always
put together; those in the middle of a conversation only where the provider wants it, because they lose their place.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from assistant_gateway.wire.decoding import LARGEST_DECODED, UNREADABLE

ROLES = frozenset({"system", "developer"})
# How servers, and the templates that they run, refuse a second system message or one that does not stand first.
_REFUSAL = re.compile(
    r"system (message|role|prompt)s?\b.{0,60}\b(beginning|first|start|once|one|single)"
    r"|(only|just|at most|more than|multiple|single|one|first)\b.{0,30}\bsystem (message|role|prompt)"
    r"|unexpected role .?system|after role .?(system|user|assistant)|roles must alternate",
    re.IGNORECASE | re.DOTALL,
)


class _Role(msgspec.Struct, frozen=True):
    role: str = ""


class _Message(msgspec.Struct, frozen=True):
    content: str | list[dict[str, Any]] | None = None


_roles = msgspec.json.Decoder(list[_Role])
_messages = msgspec.json.Decoder(list[msgspec.Raw])
_message = msgspec.json.Decoder(_Message)


def is_refusal(said: str) -> bool:
    """Return whether a provider's words mean that it takes one system message, at the beginning."""
    return _REFUSAL.search(said) is not None


def merged(messages: msgspec.Raw, *, everywhere: bool) -> msgspec.Raw:
    """Return messages with their system messages as one, in the order in which they stood.

    Args:
        messages: as the request has them; what is no list of messages is the provider's to refuse.
        everywhere: whether those in the middle of the conversation belong to it, too.
    """
    if len(memoryview(messages)) <= LARGEST_DECODED:  # to search a larger one takes longer than to take it apart
        raw = bytes(messages)
        if raw.count(b'"system"') + raw.count(b'"developer"') < (1 if everywhere else 2):
            return messages
    try:
        roles = [message.role in ROLES for message in _roles.decode(messages)]
        if everywhere:
            chosen = [at for at, system in enumerate(roles) if system]
        else:
            chosen = list(range(roles.index(False) if False in roles else len(roles)))
        if not chosen or chosen == [0]:
            return messages
        found = _messages.decode(messages)
        one = _joined([_message.decode(found[at]) for at in chosen])
    except UNREADABLE:
        return messages
    put_together = set(chosen)
    rest = [message for at, message in enumerate(found) if at not in put_together]
    return msgspec.Raw(msgspec.json.encode([{"role": "system", "content": one}, *rest]))


def _joined(messages: list[_Message]) -> str | list[dict[str, Any]]:
    """Return the content of several messages as one: text, or parts where a part has more to it than text."""
    contents = [message.content for message in messages if message.content]
    if all(isinstance(content, str) or all(_is_text(part) for part in content) for content in contents):
        texts = [
            content if isinstance(content, str) else "\n".join(part["text"] for part in content) for content in contents
        ]
        return "\n\n".join(texts)
    parts: list[dict[str, Any]] = []
    for content in contents:
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return parts


def _is_text(part: dict[str, Any]) -> bool:
    return part.keys() == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str)
