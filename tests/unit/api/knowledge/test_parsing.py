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
        ("soft\u00adware", "software"),
        ("a\x00b\x1fc\ud800d", "abcd"),
        ("oﬃce ﬂow", "office flow"),
        ("a   \n\n\n\n\nb  ", "a\n\nb"),
    ],
)
def test_text_is_cleaned_for_stores_and_readers(raw: str, expected: str) -> None:
    """Line ends, broken words, ligatures and invisible characters do not reach the chunks."""
    assert clean(raw) == expected


def form(value: bytes) -> bytes:
    """Return a PDF with one field, "Serial number", that was filled in by a program that left drawing it to readers."""
    fonts = b"<< /Font << /F 4 0 R >> >>"
    content = b"BT /F 11 Tf 20 100 Td (Serial number) Tj ET"
    bodies = (
        b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [5 0 R] /DR %s /DA (/F 11 Tf 0 g) >> >>" % fonts,
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 6 0 R /Annots [5 0 R] /Resources %s >>"
        % fonts,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (serial) /V (%s) /Rect [120 95 280 115] /F 4 /P 3 0 R >>" % value,
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
    )
    document, places = b"%PDF-1.7\n", []
    for number, body in enumerate(bodies, start=1):
        places.append(len(document))
        document += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (
        document
        + b"xref\n0 7\n0000000000 65535 f \n%strailer << /Size 7 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (
            table,
            len(document),
        )
    )


def test_what_was_filled_into_a_form_is_text_where_it_stands() -> None:
    """A serial number in a field is what people ask for."""
    (page,) = parse(media.PDF, form(b"LK4-00172"))
    assert page.split() == ["Serial", "number", "LK4-00172"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("Nordrhein-\nWestfalen", "Nordrhein-Westfalen"),
        ("ISO-\n9001", "ISO-9001"),
        ("X-\n200B", "X-200B"),
        ("Be-\nund Entladen", "Be- und Entladen"),
        ("Vor-\noder Nachteil", "Vor- oder Nachteil"),
        ("pre-\nand post-war", "pre- and post-war"),
        ("Garan-\ntie", "Garantie"),
        ("Unter-\nordnung", "Unterordnung"),
        ("see https://example.org/some-\nlong/path now", "see https://example.org/some-long/path now"),
        ("write to first-\nlast@example.org", "write to first-last@example.org"),
        ("5-\njährig", "5-jährig"),
    ],
)
def test_a_hyphen_at_a_lines_end_is_kept_where_it_belongs_to_the_word(lines: str, expected: str) -> None:
    """Only between small letters is it taken for one that the line end has made."""
    (page,) = parse(media.PDF, pdf(lines))
    assert page == expected


def test_raised_and_lowered_digits_are_told_from_the_number_before_them() -> None:
    """A footnote behind 10 does not make it 102."""
    document = FPDF()
    document.set_font("Helvetica", size=11)
    document.add_page()
    for text, position in (("Total 10", "LINE"), ("2", "SUP"), (" of H", "LINE"), ("2", "SUB"), ("O in 2024", "LINE")):
        document.char_vpos = position
        document.write(6, text)
    (page,) = parse(media.PDF, bytes(document.output()))
    assert page.split() == ["Total", "10²", "of", "H₂O", "in", "2024"]


@pytest.mark.parametrize("angle", [90, 270])
def test_a_turned_page_is_read_whole(angle: int) -> None:
    """Pages are turned for wide tables; the cell at the edge is there too, apart from its neighbour."""

    document = FPDF()
    document.set_font("Helvetica", size=8)
    document.add_page()
    with document.rotation(angle, x=100, y=100), document.table(width=60, col_widths=(20, 20, 20)) as table:
        for cells in (("Item", "Price", "Pieces"), ("Pump", "543,66", "4"), ("Valve", "12,50", "17")):
            table.row(cells)
    (page,) = parse(media.PDF, bytes(document.output()))
    assert page.split() == ["Item", "Price", "Pieces", "Pump", "543,66", "4", "Valve", "12,50", "17"]


def test_equal_looking_text_becomes_equal() -> None:
    """Composed and decomposed letters, marks of direction and spaces without width: nobody sees a difference."""
    assert clean("Ru\u0308ck\u200bgabe\u200e \u202bx\u202c \ufeffy") == "Rückgabe x y"
    assert clean("office\u200d we\u200cb") == "office web"
    persian = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # here the joiner shapes the letters
    assert clean(persian) == persian


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "---\ntitle: Returns\ntags: [shop, service]\n# Internal: ask Bo first\n---\nSend it back.",
            "# Returns\n\nshop, service\n\nSend it back.",
        ),
        ('+++\ntitle = "Returns"\ndraft = true\n+++\nSend it back.', "# Returns\n\nSend it back."),
        ("---\ntitle: Returns\n---\n# Sending back\n\nText", "# Sending back\n\nText"),
        ("---\n# Internal only\n---\nText", "Text"),
        ("Text\n\n---\n\ntitle: no\n\n---\nmore", "Text\n\n---\n\ntitle: no\n\n---\nmore"),
        ("---\nJust a line\n---\nmore", "---\nJust a line\n---\nmore"),
        ("---\na: [1\n---\nmore", "---\na: [1\n---\nmore"),
    ],
)
def test_front_matter_gives_title_and_tags_and_nothing_else(text: str, expected: str) -> None:
    """A comment in it is no heading of the passages, and what only looks like it stays."""
    assert list(parse(media.MARKDOWN, text.encode())) == [expected]
