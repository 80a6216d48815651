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
        ("a.txt", b" " * 2000 + b"\x00%PDF-1.4"),
        ("a.exe", b"text"),
    ],
)
def test_everything_else_is_refused(name: str, head: bytes) -> None:
    """Binary content under a text name, and text under another format's name, are none of ours."""
    assert media.recognise(name, head) is None
