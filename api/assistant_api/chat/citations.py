"""Find which passages an answer used, by its markers `[n]`, and say so in `annotations`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from assistant_api.chat.schemas import Annotation, FileCitation, UrlCitation, words_of
from assistant_api.decoding import MALFORMED
from assistant_api.knowledge.links import passage_path
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
_content = msgspec.json.Decoder(str | list[Any] | None).decode
_MAX_OPEN = 40  # a marker that is still open after so many characters is none
MAX_MARKS = 128  # of one choice; beyond them a passage is only told when it is cited for the first time


class Mark(NamedTuple):
    """A marker in the text of a choice: its place in code points, and one of the passages it names."""

    start: int
    end: int
    number: int


class Tracker:
    """Collects the markers of one choice that name one of the `passages` that there are.

    The text comes in pieces that may cut a marker anywhere.
    """

    __slots__ = ("_before", "_open", "_passages", "_seen", "marks")

    def __init__(self, passages: int) -> None:
        self._passages = passages
        self._before = 0  # characters of the text up to now, without what is open
        self._open = ""
        self._seen: set[int] = set()
        self.marks: list[Mark] = []

    def feed(self, text: str) -> None:
        """Take the next piece of the answer."""
        if not self._open and "[" not in text:
            self._before += len(text)
            return
        text = self._open + text
        for marker in _MARKER.finditer(text):
            for number in dict.fromkeys(int(number) for number in marker[1].split(",")):
                self._note(Mark(self._before + marker.start(), self._before + marker.end(), number))
        start = text.rfind("[")
        rest = text[start:] if start >= 0 else ""
        self._open = rest if "]" not in rest and len(rest) <= _MAX_OPEN else ""
        self._before += len(text) - len(self._open)

    def _note(self, mark: Mark) -> None:
        if 1 <= mark.number <= self._passages and (len(self.marks) < MAX_MARKS or mark.number not in self._seen):
            self._seen.add(mark.number)
            self.marks.append(mark)


@dataclass(frozen=True, slots=True)
class Sources:
    """The passages that an answer may cite, and the origin (`https://host`) under which their documents are."""

    passages: Sequence[Passage]
    origin: str

    def tracker(self) -> Tracker:
        """Return a tracker for one choice."""
        return Tracker(len(self.passages))

    def annotations(self, marks: Sequence[Mark]) -> list[Annotation]:
        """Return an annotation for each mark, in their order."""
        cited = {number: _citation(number, self.passages[number - 1]) for number in {mark.number for mark in marks}}
        links = {number: self.origin + passage_path(self.passages[number - 1]) for number in cited}
        return [
            Annotation(
                UrlCitation(mark.start, mark.end, links[mark.number], cited[mark.number].filename), cited[mark.number]
            )
            for mark in marks
        ]


def annotate(content: bytes, sources: Sources) -> bytes:
    """Return a complete (not streamed) answer with annotations; anything unexpected passes through unchanged."""
    if len(content) > MAX_ANNOTATED:
        return content
    try:
        completion = _members(content)
        choices = [_annotated(choice, sources) for choice in _list(completion["choices"])]
        if all(new is None for _, new in choices):
            return content
        completion["choices"] = msgspec.Raw(msgspec.json.encode([new or old for old, new in choices]))
        return msgspec.json.encode(completion)
    except (*MALFORMED, KeyError):
        return content


def _annotated(choice: msgspec.Raw, sources: Sources) -> tuple[msgspec.Raw, msgspec.Raw | None]:
    """Return a choice as it came, and with its annotations when there are any. Nothing else of it is decoded."""
    try:
        members = _members(choice)
        message = _members(members["message"])
        tracker = sources.tracker()
        tracker.feed(words_of(_content(message["content"])))
        if not (found := sources.annotations(tracker.marks)):
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
