"""From text to chunks: pieces of at most so many tokens, cut where the text itself pauses.

Text is first cut into sections (a page, a heading's body, a few thousand characters), then each section by tokens.
The splitter weighs every candidate cut by counting tokens again, so on whole documents its time grows with their
size: 45 pages/s on a 500-page text, 1,200 pages/s section by section (measured; see decision 0010). A chunk
therefore never spans two pages or two headings, which makes its page number and its heading exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Protocol

import msgspec
from semantic_text_splitter import MarkdownSplitter, TextSplitter

from assistant_api.knowledge import media, tables
from assistant_api.knowledge.parsing import TOO_LONG, ParsingError

# The tokens of OpenAI's embedding models; for other models it is a close estimate. The table is part of the library.
TOKENS_OF = "text-embedding-3-small"
SECTION_CHARACTERS = 6_000
MAX_CHUNKS = 50_000

_HEADING = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_MAX_HEADING_PATH = 200


class Chunk(msgspec.Struct, frozen=True):
    """One piece of a document; `page` counts from 1, None for documents without pages."""

    text: str
    page: int | None = None


class Splitter(Protocol):
    """What both splitters of the library have."""

    def chunks(self, text: str) -> list[str]:
        """Return the pieces of `text`."""


def chunk(media_type: str, pages: Iterable[str], max_tokens: int, overlap_tokens: int) -> Iterator[Chunk]:
    """Yield the chunks of a document in reading order. Raises ParsingError when there are too many to be meant."""
    count = 0
    for number, page in enumerate(pages, start=1):
        pieces = (
            _markdown_chunks(page, max_tokens, overlap_tokens)
            if media_type == media.MARKDOWN
            else _text_chunks(page, _text_splitter(max_tokens, overlap_tokens))
        )
        for text in pieces:
            count += 1
            if count > MAX_CHUNKS:
                raise ParsingError(TOO_LONG, f"The document has more than {MAX_CHUNKS} chunks; split it.")
            yield Chunk(text=text, page=number if media_type == media.PDF else None)


@lru_cache(maxsize=64)
def _text_splitter(max_tokens: int, overlap_tokens: int) -> Splitter:
    return TextSplitter.from_tiktoken_model(TOKENS_OF, max_tokens, _overlap(max_tokens, overlap_tokens))


@lru_cache(maxsize=64)
def _markdown_splitter(max_tokens: int, overlap_tokens: int) -> Splitter:
    return MarkdownSplitter.from_tiktoken_model(TOKENS_OF, max_tokens, _overlap(max_tokens, overlap_tokens))


def _overlap(max_tokens: int, overlap_tokens: int) -> int:
    return max(0, min(overlap_tokens, max_tokens - 1))


def _text_chunks(text: str, splitter: Splitter) -> Iterator[str]:
    for section in sections(text):
        yield from splitter.chunks(section)


def sections(text: str) -> Iterator[str]:
    """Yield `text` in pieces of at most `SECTION_CHARACTERS`, cut at the strongest pause in their second half."""
    start = 0
    while len(text) - start > SECTION_CHARACTERS:
        end = _pause(text, start + SECTION_CHARACTERS // 2, start + SECTION_CHARACTERS)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _pause(text: str, low: int, high: int) -> int:
    for mark in ("\n\n", "\n", ". ", " "):
        found = text.rfind(mark, low, high)
        if found >= 0:
            return found + len(mark)
    return high


def _markdown_chunks(text: str, max_tokens: int, overlap_tokens: int) -> Iterator[str]:
    """Yield chunks that begin with the path of headings they stand under: a paragraph alone may not say its subject."""
    for path, body in headed_sections(text):
        context = " > ".join(path)[-_MAX_HEADING_PATH:]
        if not body:
            yield context
            continue
        spent = _rounded_tokens(context)
        for piece in _body_chunks(body, max(max_tokens - spent, max_tokens // 2), overlap_tokens):
            yield f"{context}\n\n{piece}" if context else piece


def _body_chunks(body: str, max_tokens: int, overlap_tokens: int) -> Iterator[str]:
    """Yield the chunks of a section; a table that has to be cut repeats its header row, or no cell has a name."""
    pieces = list(_text_chunks(body, _markdown_splitter(max_tokens, overlap_tokens)))
    if len(pieces) == 1 or "|" not in body:
        yield from pieces
        return
    for head, text in tables.blocks(body):
        left = max_tokens - _rounded_tokens(head)
        if head and left >= max_tokens // 3:  # else the header would leave no room for its rows
            for rows in _text_chunks(text, _text_splitter(left, 0)):
                yield head + rows
        else:
            yield from _text_chunks(head + text, _markdown_splitter(max_tokens, overlap_tokens))


def _rounded_tokens(text: str) -> int:
    """Return about the tokens of a short text, three characters each, in eights so that splitters are few."""
    return -(-len(text) // 24) * 8


def headed_sections(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (headings from the outermost in, text under the innermost) in reading order.

    ATX headings (`# …`) of CommonMark, outside fenced code. A heading with neither text nor headings under it
    comes with an empty text; one with only headings under it does not come by itself.
    """
    path: list[tuple[int, str]] = []
    body: list[str] = []
    fence = ""
    for line in text.split("\n"):
        heading = None if fence else _HEADING.match(line)
        if heading is None:
            fence = _after(line, fence)
            body.append(line)
            continue
        level = len(heading[1])
        yield from _section(path, body, next_level=level)
        while path and path[-1][0] >= level:
            path.pop()
        path.append((level, (heading[2] or "").strip()))
        body = []
    yield from _section(path, body, next_level=0)


def _section(path: list[tuple[int, str]], body: list[str], next_level: int) -> Iterator[tuple[tuple[str, ...], str]]:
    text = "\n".join(body).strip()
    titles = tuple(title for _, title in path if title)
    childless = bool(path) and next_level <= path[-1][0]
    if text or (titles and childless):
        yield titles, text


def _after(line: str, fence: str) -> str:
    """Return the code fence that is open after `line`, given the one open before it ("" for none)."""
    found = _FENCE.match(line)
    if found is None:
        return fence
    if not fence:
        return found[1]
    closes = found[1][0] == fence[0] and len(found[1]) >= len(fence) and not line[found.end() :].strip()
    return "" if closes else fence
