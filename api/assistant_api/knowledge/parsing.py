"""From a document's bytes to its text, page by page. Runs in the parser's process, never in the API or worker."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pypdfium2
import pypdfium2.raw as pdfium

from assistant_api.knowledge import encoding, media
from assistant_api.knowledge.front_matter import with_front_matter_as_text
from assistant_api.knowledge.pdf_text import page_text
from assistant_api.knowledge.text import normalise

MAX_PAGES = 20_000
MAX_CHARACTERS = 32 * 1024 * 1024  # as many as an upload may have bytes: what unpacks to more is a bomb


class ParsingError(Exception):
    """The document cannot be turned into text; `code` is stable, the message is for the person who uploaded it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


TOO_LONG = "document_too_long"
ENCRYPTED = "document_encrypted"
DAMAGED = "document_damaged"
NO_TEXT = "document_has_no_text"
ENCODING_UNKNOWN = "document_encoding_unknown"

_TRAILING_SPACE = re.compile(r"[^\S\n]+\n")
_MANY_NEWLINES = re.compile(r"\n{3,}")


def parse(media_type: str, content: bytes) -> Iterator[str]:
    """Yield the text of each page; a document without pages is one page. Raises ParsingError."""
    characters = 0
    found = False
    for page in _pdf_pages(content) if media_type == media.PDF else (_decode(content),):
        characters += len(page)
        if characters > MAX_CHARACTERS:
            raise ParsingError(TOO_LONG, f"The document holds more than {MAX_CHARACTERS} characters; split it.")
        text = clean(page)
        if media_type == media.MARKDOWN:
            text = with_front_matter_as_text(text)
        found = found or bool(text)
        yield text
    if not found:
        raise ParsingError(
            NO_TEXT,
            "No text was found. If the document was scanned, run text recognition (OCR) on it first."
            if media_type == media.PDF
            else "The document holds no text.",
        )


def clean(text: str) -> str:
    """Return `text` with plain newlines, in the form in which it is searched, and nothing invisible."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n").replace("\v", "\n")
    return _MANY_NEWLINES.sub("\n\n", _TRAILING_SPACE.sub("\n", normalise(text))).strip()


def _decode(content: bytes) -> str:
    try:
        return encoding.decode(content)
    except encoding.UnknownEncodingError as error:
        message = "The text encoding is not recognized. Save the file as UTF-8 and upload it again."
        raise ParsingError(ENCODING_UNKNOWN, message) from error


def _pdf_pages(content: bytes) -> Iterator[str]:
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if error.err_code in {pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY}:
            raise ParsingError(ENCRYPTED, "The PDF asks for a password; upload it without one.") from error
        raise ParsingError(DAMAGED, "The file is not a readable PDF; it may be damaged or cut off.") from error
    with document:
        document.init_forms()  # what was filled into a form is text, too; before anything else is asked of the document
        if len(document) > MAX_PAGES:
            raise ParsingError(TOO_LONG, f"The PDF has {len(document)} pages, more than {MAX_PAGES}; split it.")
        unreadable = 0
        for number in range(len(document)):
            text = _page_text(document, number)
            unreadable += text is None
            yield text or ""
        if unreadable and unreadable == len(document):
            raise ParsingError(DAMAGED, "No page of the PDF can be read; it may be damaged or cut off.")


def _page_text(document: pypdfium2.PdfDocument, number: int) -> str | None:
    """Return a page's text, or None when the page is broken: its neighbours may still be worth having."""
    try:
        return page_text(document, number)
    except pypdfium2.PdfiumError:
        return None
