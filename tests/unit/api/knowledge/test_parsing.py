"""From bytes to text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fpdf import FPDF
from fpdf.enums import EncryptionMethod

from assistant_api.knowledge import media, parsing
from assistant_api.knowledge.parsing import ParsingError, clean, parse


def pdf(*pages: str, change: Callable[[FPDF], None] = lambda document: None) -> bytes:
    """Return a PDF with these texts on its pages; an empty text is a page with a drawing only."""
    document = FPDF()
    document.set_font("Helvetica", size=11)
    change(document)
    for text in pages:
        document.add_page()
        if text:
            document.multi_cell(0, 6, text)
        else:
            document.line(10, 10, 100, 100)
    return bytes(document.output())


def refusal(media_type: str, content: bytes) -> ParsingError:
    with pytest.raises(ParsingError) as caught:
        list(parse(media_type, content))
    return caught.value


def test_each_page_of_a_pdf_is_a_text() -> None:
    """Page texts come in order, a page without text as an empty one, so that numbers stay right."""
    assert list(parse(media.PDF, pdf("First page.", "", "Third page."))) == ["First page.", "", "Third page."]


def test_a_pdf_with_a_password_is_refused_with_the_reason() -> None:
    """Someone who uploads a protected PDF is told so."""

    def protect(document: FPDF) -> None:
        document.set_encryption("owner", "user", encryption_method=EncryptionMethod.RC4)

    assert refusal(media.PDF, pdf("Secret", change=protect)).code == parsing.ENCRYPTED


def test_a_pdf_that_only_forbids_printing_is_read() -> None:
    """A PDF that opens without a password is no secret."""

    def restrict(document: FPDF) -> None:
        document.set_encryption("owner", encryption_method=EncryptionMethod.RC4)

    assert list(parse(media.PDF, pdf("Readable", change=restrict))) == ["Readable"]


def test_a_scanned_pdf_is_refused_with_a_way_out() -> None:
    """Pages without any text are no knowledge; the message says what to do."""
    error = refusal(media.PDF, pdf("", ""))
    assert error.code == parsing.NO_TEXT
    assert "OCR" in error.message


@pytest.mark.parametrize("content", [b"%PDF-1.4", b"%PDF-1.7\n%%EOF", pdf("Text " * 500)[:700]])
def test_a_damaged_pdf_is_refused(content: bytes) -> None:
    """A cut-off file is told apart from an empty one."""
    assert refusal(media.PDF, content).code == parsing.DAMAGED


@pytest.mark.parametrize("content", [b"", b" \n\t ", b"\xef\xbb\xbf", b"\x0c\x0b"])
def test_a_text_without_text_is_refused(content: bytes) -> None:
    """White space alone is no knowledge."""
    assert refusal(media.TEXT, content).code == parsing.NO_TEXT


def test_a_text_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks to more than an upload may hold is not read to its end."""
    monkeypatch.setattr(parsing, "MAX_CHARACTERS", 10)
    assert refusal(media.TEXT, b"eleven char").code == parsing.TOO_LONG


def test_a_pdf_with_too_many_pages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is named in the message."""
    monkeypatch.setattr(parsing, "MAX_PAGES", 2)
    error = refusal(media.PDF, pdf("a", "b", "c"))
    assert (error.code, "3 pages" in error.message) == (parsing.TOO_LONG, True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Grüße".encode(), "Grüße"),
        (b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe", "Grüße"),
        ("Grüße".encode("cp1252"), "Grüße"),
        ("Grüße مرحبا".encode("utf-16"), "Grüße مرحبا"),
        (b"a\xff\xfe\x00b", "aÿþb"),
    ],
)
def test_text_is_read_in_its_encoding(content: bytes, expected: str) -> None:
    """UTF-8 with and without mark, UTF-16 with mark, and the old one-byte encoding of Western Europe."""
    assert list(parse(media.TEXT, content)) == [expected]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\r\nb\rc\x0cd", "a\nb\nc\n\nd"),
        ("exam\ufffe\r\nple and soft\u00adware", "example and software"),
        ("a\x00b\x1fc\ud800d", "abcd"),
        ("oﬃce ﬂow", "office flow"),
        ("a   \n\n\n\n\nb  ", "a\n\nb"),
    ],
)
def test_text_is_cleaned_for_stores_and_readers(raw: str, expected: str) -> None:
    """Line ends, broken words, ligatures and invisible characters do not reach the chunks."""
    assert clean(raw) == expected
