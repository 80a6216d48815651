"""Telling what an upload is."""

from __future__ import annotations

import pytest

from assistant_api.knowledge import media


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.pdf", b"%PDF-1.7\n", media.PDF),
        ("a.txt", b"%PDF-1.7\n", media.PDF),
        ("a", b"\x00\x01 junk before the header %PDF-1.4", media.PDF),
        ("a.md", b"# Title", media.MARKDOWN),
        ("A.MARKDOWN", b"text", media.MARKDOWN),
        ("a.txt", b"text", media.TEXT),
        ("README", b"text", media.TEXT),
        ("a.txt", "Grüße, 世界, مرحبا".encode(), media.TEXT),
        ("a.txt", "Grüße".encode("latin-1"), media.TEXT),
        ("a.txt", "text".encode("utf-16"), media.TEXT),
        ("a.txt", "text of an old program".encode("utf-16-le"), media.TEXT),
        ("a.txt", b"The end of an old file.\r\n\x1a", media.TEXT),
        ("a.log", b"10:00 started\n" * 20 + bytes(400), media.TEXT),
        ("a.log", b"10:00 started\n" * 40 + bytes(300) + b"10:05 started again\n" * 20, media.TEXT),
        (
            "a.log",
            b"\x07".join([b"one bell in a line of a terminal's log, which is text all the same\n"] * 3),
            media.TEXT,
        ),
        ("a.txt", b"", media.TEXT),
    ],
)
def test_accepted_documents_are_told_by_content_then_name(name: str, head: bytes, expected: str) -> None:
    """A PDF is one whatever it is called; text is Markdown if its name says so."""
    assert media.recognise(name, head) == expected


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.pdf", b"not a PDF"),
        ("a.txt", b"\x89PNG\r\n\x1a\n\x00\x00"),
        ("a.md", b"PK\x03\x04\x14\x00\x00"),
        ("a.docx", b"PK\x03\x04\x14\x00\x00"),
        ("a.html", b"<p>text</p>"),
        ("a.csv", b"a,b"),
        ("a.txt", bytes(range(32)) * 60 + b"%PDF-1.4"),
        ("a.log", bytes(4096)),
        ("a.exe", b"text"),
    ],
)
def test_everything_else_is_refused(name: str, head: bytes) -> None:
    """Binary content under a text name, and text under another format's name, are none of ours."""
    assert media.recognise(name, head) is None


@pytest.mark.parametrize("ending", media.ENDINGS)
def test_the_endings_that_are_told_are_those_that_are_taken(ending: str) -> None:
    """Who follows the message of a refusal is not refused again."""
    assert media.recognise(f"a{ending}", b"%PDF-1.7\n" if ending == ".pdf" else b"text") is not None
