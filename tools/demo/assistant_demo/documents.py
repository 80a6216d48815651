"""The documents that the demo uploads: the files in `tools/demo/handbook`, and a PDF printed from the text in `print/`.

The PDF is printed on demand, byte for byte the same each time, so that the repository holds text only and a second
upload is recognised as the same document.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF
from fpdf.enums import XPos, YPos

HANDBOOK = Path(__file__).resolve().parents[1] / "handbook"
PRINT = HANDBOOK / "print"
PAGE_BREAK = "\n---\n"
PRINTED_ON = datetime(2026, 4, 1, 8, 0, tzinfo=UTC)
FONT = "helvetica"
SIZES = {"# ": 18, "## ": 14, "### ": 12}
LINE_HEIGHT = 6


def handbook(folder: Path) -> list[Path]:
    """Return the documents to upload, with the PDFs printed into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    printed = []
    for source in sorted(PRINT.glob("*.md")):
        target = folder / f"{source.stem}.pdf"
        target.write_bytes(print_pdf(source.read_text(encoding="utf-8")))
        printed.append(target)
    return sorted(path for path in HANDBOOK.iterdir() if path.suffix in {".md", ".txt"}) + printed


def print_pdf(source: str) -> bytes:
    """Return a text with `#` headings, `-` lists, paragraphs and `---` page breaks as a PDF."""
    pdf = FPDF(format="A4")
    pdf.set_creation_date(PRINTED_ON)
    pdf.set_margin(22)
    pdf.set_auto_page_break(auto=True, margin=22)
    pdf.set_title(source.split("\n", 1)[0].removeprefix("# "))
    pdf.set_lang("en")
    for page in source.strip().split(PAGE_BREAK):
        pdf.add_page()
        for block in page.strip().split("\n\n"):
            _print_block(pdf, block)
    return bytes(pdf.output())


def _print_block(pdf: FPDF, block: str) -> None:
    paragraph: list[str] = []
    for line in block.splitlines():
        mark = next((mark for mark in SIZES if line.startswith(mark)), None)
        if mark:
            _print_text(pdf, line.removeprefix(mark), size=SIZES[mark], style="B")
        elif line.startswith("- "):
            _print_text(pdf, f"- {line.removeprefix('- ')}")
        else:
            paragraph.append(line)
    if paragraph:
        _print_text(pdf, " ".join(paragraph))
    pdf.ln(LINE_HEIGHT / 2)


def _print_text(pdf: FPDF, text: str, *, size: int = 11, style: str = "") -> None:
    pdf.set_font(FONT, style=style, size=size)
    pdf.multi_cell(0, LINE_HEIGHT * size / 11, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT, align="L")
