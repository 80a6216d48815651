"""Which kind of document an upload is, told from its content and its name, never from what the client claims."""

from __future__ import annotations

from pathlib import PurePosixPath

from assistant_api.knowledge.encoding import utf16_without_mark

PDF = "application/pdf"
MARKDOWN = "text/markdown"
TEXT = "text/plain"
ACCEPTED = (TEXT, MARKDOWN, PDF)

SNIFF_BYTES = 64 * 1024
# Readers accept a PDF whose header is anywhere in the first kilobyte (ISO 32000-1, annex H.3).
_PDF_HEADER = b"%PDF-"
_PDF_HEADER_WITHIN = 1024

_MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})
_TEXT_SUFFIXES = frozenset({"", ".txt", ".text", ".log", ".rst"})
ENDINGS = (*sorted((_MARKDOWN_SUFFIXES | _TEXT_SUFFIXES) - {""}), ".pdf")  # as they are told to people
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# What old editors write at the end of a file, and file systems where a write was lost in a crash.
_PADDING = b"\x00\x1a"
_MOST_CONTROLS = 50  # one in so many bytes: a stray control character in a text, not a binary file
# Control characters that ordinary text holds: tab, line feed, vertical tab, form feed, carriage return, escape.
_CONTROLS = bytes(set(range(32)) - {9, 10, 11, 12, 13, 27})


def recognise(name: str, head: bytes) -> str | None:
    """Return the media type of a document from its name and its first `SNIFF_BYTES`, or None if it is none of ours."""
    if _PDF_HEADER in head[: _PDF_HEADER_WITHIN + len(_PDF_HEADER)]:
        return PDF
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in _MARKDOWN_SUFFIXES | _TEXT_SUFFIXES or not _is_text(head):
        return None
    return MARKDOWN if suffix in _MARKDOWN_SUFFIXES else TEXT


def _is_text(head: bytes) -> bool:
    if head.startswith(_UTF16_MARKS) or utf16_without_mark(head) is not None:
        return True
    text = head.rstrip(_PADDING)
    if head and not text:
        return False
    controls = len(text) - len(text.translate(None, _CONTROLS))
    zeros = text.count(0)
    # Zeros in the midst are holes; what is around them has to be text.
    return (controls - zeros) * _MOST_CONTROLS <= len(text) - zeros and zeros * 2 <= len(text)
