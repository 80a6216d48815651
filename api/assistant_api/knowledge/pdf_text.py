"""The text of one page of a PDF as a person reads it: whole words, real hyphens, raised digits, form values."""

from __future__ import annotations

import ctypes
import re

import pypdfium2
import pypdfium2.raw as pdfium

# PDFium writes U+FFFE in place of a hyphen and the line end after it, and of a character that its font does not name.
_MARK = "\ufffe"
_MARKS = re.compile(f"{_MARK}[\r\n]*")
_UNMARKED = re.compile(r"(?<=[0-9])-\r?\n(?=\w)")  # behind a digit it leaves the hyphen as it is
# A run of digits behind something that is not a space: what is raised beside it.
_DIGITS = re.compile(r"\S[0-9]+")
_SCRIPTS = {
    "raised": str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"),
    "lowered": str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"),
}
_SMALLER = 0.85  # of the height of the character before: such digits are set at about 0.6
_RISE = 0.08  # of that height: how far their base line is from that of the others, at least
_UPRIGHT = 0.01  # radians
_ADDRESS_AFTER = re.compile(r"\S*(?:://|@)")
# After these a hyphen stands for the rest of a word that comes later: "Be- und Entladen".
_CONJUNCTIONS = ("und", "oder", "bis", "sowie", "and", "or", "to", "et", "ou", "y", "e", "o")
_SUSPENDED = re.compile(rf"(?:{'|'.join(_CONJUNCTIONS)})\b")
_ADDRESS = re.compile(r"\S*(?:://|www\.|@|/)\S*\Z")
_WORD = 200  # characters in which the rest of an address is looked for


def page_text(document: pypdfium2.PdfDocument, number: int) -> str:
    """Return the text of a page; what was filled into its form stands where it is seen.

    Asked by range, not by box: by box pypdfium2 5.15.2 glues lines of turned text together, and cells of narrow tables
    (`findings/pdf-text-by-box.sh`).

    Raises:
        pypdfium2.PdfiumError: the page cannot be read.
    """
    page = document[number]
    try:
        if document.formenv is not None:
            page.flatten()
            page.close()
            page = document[number]
        reader = page.get_textpage()
        try:
            text = reader.get_text_range()
            return _with_hyphens(reader, _with_raised_digits(reader, text)) if text else ""
        finally:
            reader.close()
    finally:
        page.close()


def _with_hyphens(reader: pypdfium2.PdfTextPage, text: str) -> str:
    text = _UNMARKED.sub(lambda found: hyphen(_before(text, found), _after(text, found)), text)
    if _MARK not in text:
        return text

    def written(found: re.Match[str]) -> str:
        index = pdfium.FPDFText_GetCharIndexFromTextIndex(reader, found.start())
        if index < 0 or pdfium.FPDFText_IsHyphen(reader, index) != 1:
            return found[0][1:]  # a character without a name, not a hyphen
        return hyphen(_before(text, found), _after(text, found))

    return _MARKS.sub(written, text)


def _before(text: str, found: re.Match[str]) -> str:
    return text[max(0, found.start() - _WORD) : found.start()]


def _after(text: str, found: re.Match[str]) -> str:
    return text[found.end() : found.end() + _WORD]


def hyphen(before: str, after: str) -> str:
    """Return what to write for a hyphen at a line's end, between the text before and after it.

    Only between small letters is it taken for one that the line end alone has made.
    """
    if _ADDRESS.search(before) or _ADDRESS_AFTER.match(after):
        return "-"
    if _SUSPENDED.match(after):
        return "- "
    return "" if before[-1:].islower() and after[:1].islower() else "-"


def _with_raised_digits(reader: pypdfium2.PdfTextPage, text: str) -> str:
    """Return the text with raised and lowered digits as such: "Total 10" with the footnote 2 is not 102."""

    def written(found: re.Match[str]) -> str:
        first = pdfium.FPDFText_GetCharIndexFromTextIndex(reader, found.start())
        if first < 0:
            return found[0]
        table = None
        kept = len(found[0])
        # Such digits stand at the end of what they belong to; most runs are known to have none by their last digit.
        while kept > 1 and (here := _position(reader, first, first + kept - 1)) is not None and table in {None, here}:
            table, kept = here, kept - 1
        return found[0][:kept] + found[0][kept:].translate(_SCRIPTS[table]) if table is not None else found[0]

    return _DIGITS.sub(written, text)


def _position(reader: pypdfium2.PdfTextPage, reference: int, index: int) -> str | None:
    """Return whether a character is raised or lowered beside another, by the boxes that their font size gives them."""
    whole, small = pdfium.FS_RECTF(), pdfium.FS_RECTF()
    if not pdfium.FPDFText_GetLooseCharBox(reader, reference, whole):
        return None
    if not pdfium.FPDFText_GetLooseCharBox(reader, index, small):
        return None
    height = whole.top - whole.bottom
    if not 0 < small.top - small.bottom < _SMALLER * height:
        return None
    rise = (_baseline(reader, index) - _baseline(reader, reference)) / height
    if abs(rise) < _RISE or abs(pdfium.FPDFText_GetCharAngle(reader, index)) > _UPRIGHT:
        return None
    return "raised" if rise > 0 else "lowered"


def _baseline(reader: pypdfium2.PdfTextPage, index: int) -> float:
    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDFText_GetCharOrigin(reader, index, x, y)
    return y.value
