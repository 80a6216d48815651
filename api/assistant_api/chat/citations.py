"""Find which passages an answer used, by its markers `[n]`, and say so in `annotations`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from assistant_api.chat.schemas import Annotation, FileCitation
from assistant_api.decoding import MALFORMED
from assistant_api.knowledge.schemas import Passage

QUOTE_CHARACTERS = 200
_MARKER = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")  # [1] and [1, 2]
_IMAGE = re.compile(r"!+\[")  # how an image begins in Markdown
# Elements of HTML that fetch an address, or run, as soon as they are shown.
_LOADING = re.compile(
    r"<(?=/?(?:audio|base|embed|form|frame|iframe|image|img|input|link|meta|object|picture|script|source|style|svg|video)\b)",
    re.IGNORECASE,
)
MAX_ANNOTATED = 2 << 20  # bytes of an answer; decoding a larger one could take more memory than the pod has
_NULL = msgspec.Raw(b"null")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode
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
    if len(content) > MAX_ANNOTATED:
        return content
    try:
        completion = _members(content)
        choices = [_annotated(choice, passages) for choice in _list(completion["choices"])]
        if all(new is None for _, new in choices):
            return content
        completion["choices"] = msgspec.Raw(msgspec.json.encode([new or old for old, new in choices]))
        return msgspec.json.encode(completion)
    except (*MALFORMED, KeyError):
        return content


def _annotated(choice: msgspec.Raw, passages: Sequence[Passage]) -> tuple[msgspec.Raw, msgspec.Raw | None]:
    """Return a choice as it came, and with its annotations when there are any. Nothing else of it is decoded."""
    try:
        members = _members(choice)
        message = _members(members["message"])
        tracker = Tracker()
        tracker.feed(_text(message["content"]))
        if not (found := annotations_of(tracker.used, passages)):
            return choice, None
        earlier = _list(message["annotations"]) if message.get("annotations", _NULL) != _NULL else []
    except (msgspec.ValidationError, KeyError):  # it has no text
        return choice, None
    message["annotations"] = msgspec.Raw(msgspec.json.encode([*earlier, *found]))
    members["message"] = msgspec.Raw(msgspec.json.encode(message))
    return choice, msgspec.Raw(msgspec.json.encode(members))


def _citation(number: int, passage: Passage) -> FileCitation:
    return FileCitation(
        index=number,
        file_id=str(passage.document_id),
        filename=_shown(passage.document_name),
        page=passage.page,
        knowledge_base=passage.knowledge_base,
        score=round(passage.score, 4),
        quote=_shown(passage.text)[:QUOTE_CHARACTERS],
    )


def _shown(text: str) -> str:
    """Return a document's own words so that nothing is fetched where they are shown as Markdown or HTML.

    An image's address can carry away what the reader sees: it becomes a link, which nobody follows unasked.
    """
    return _LOADING.sub("< ", _IMAGE.sub("[", text))
