"""Find which passages an answer used, by its markers `[n]`, and say so in `annotations`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from assistant_api.chat.schemas import Annotation, FileCitation
from assistant_api.knowledge.schemas import Passage

QUOTE_CHARACTERS = 200
_MARKER = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")  # [1] and [1, 2]
_MAX_OPEN = 40  # a marker that is still open after so many characters is none


class Tracker:
    """Collects the markers of one choice; the text comes in pieces that may cut a marker anywhere."""

    __slots__ = ("_open", "used")

    def __init__(self) -> None:
        self._open = ""
        self.used: set[int] = set()

    def feed(self, text: str) -> None:
        """Take the next piece of the answer."""
        if not self._open and "[" not in text:
            return
        text = self._open + text
        for marker in _MARKER.finditer(text):
            self.used.update(int(number) for number in marker[1].split(","))
        start = text.rfind("[")
        rest = text[start:] if start >= 0 else ""
        self._open = rest if "]" not in rest and len(rest) <= _MAX_OPEN else ""


def annotations_of(used: set[int], passages: Sequence[Passage]) -> list[Annotation]:
    """Return an annotation for each used number that has a passage, in order of the numbers."""
    return [
        Annotation(_citation(number, passages[number - 1])) for number in sorted(used) if 1 <= number <= len(passages)
    ]


def annotate(content: bytes, passages: Sequence[Passage]) -> bytes:
    """Return a complete (not streamed) answer with annotations; anything unexpected passes through unchanged."""
    try:
        completion = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return content
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(choices, list):
        return content
    changed = [_annotate_choice(choice, passages) for choice in choices]
    return msgspec.json.encode(completion) if any(changed) else content


def _annotate_choice(choice: Any, passages: Sequence[Passage]) -> bool:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(text := message.get("content"), str):
        return False
    tracker = Tracker()
    tracker.feed(text)
    found = annotations_of(tracker.used, passages)
    if found:
        message["annotations"] = [*(message.get("annotations") or []), *found]
    return bool(found)


def _citation(number: int, passage: Passage) -> FileCitation:
    return FileCitation(
        index=number,
        file_id=str(passage.document_id),
        filename=passage.document_name,
        page=passage.page,
        knowledge_base=passage.knowledge_base,
        score=round(passage.score, 4),
        quote=passage.text[:QUOTE_CHARACTERS],
    )
