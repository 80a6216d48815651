#!/usr/bin/env bash
# Package:  pypdfium2==5.15.2 (PDFium 159.0.8149.0); reportlab==5.1.0 writes the page
# Expected: the text of the whole page, with cells and lines apart. Source: the README of pypdfium2, "Extract text
#           from the whole page": `text_all = textpage.get_text_bounded()`.
# Seen:     the last cell of a row is glued to the one before it where it is one digit long (a price of 543,66 and 4
#           pieces read 543,664), and in text that is turned by 90 degrees lines are glued together.
#           `get_text_range()` reads both rightly.
# Here:     api/assistant_api/knowledge/pdf_text.py asks by range.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --root-user-action ignore --no-compile --no-warn-conflicts \
    --target "$folder" pypdfium2==5.15.2 reportlab==5.1.0
PYTHONPATH=$folder python3 - <<'END'
import io
import sys

import pypdfium2
from reportlab.pdfgen.canvas import Canvas


def read(rows, angle):
    """Return the words of a page with these rows of cells, read by range and by box."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(595, 842))
    canvas.setFont("Helvetica", 8)
    canvas.translate(300, 400)
    canvas.rotate(angle)
    for line, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            canvas.drawString(57 * column, -14 * line, cell)
    canvas.save()
    page = pypdfium2.PdfDocument(file.getvalue())[0].get_textpage()
    return page.get_text_range().split(), page.get_text_bounded().split()


table = [["Item", "Price", "Pieces"], ["Pump", "543,66", "4"], ["Valve", "12,50", "17"]]
lines = [["first"], ["second"], ["third"], ["fourth"]]
changed = False
for rows, angle, glued in (
    (table, 0, ["Item", "Price", "Pieces", "Pump", "543,664", "Valve", "12,50", "17"]),
    (lines, 90, ["first", "secondthirdfourth"]),
):
    by_range, by_box = read(rows, angle)
    expected = [cell for cells in rows for cell in cells]
    print(f"turned by {angle}: expected {expected}, seen {by_box}, by range {by_range}")
    changed |= (by_range, by_box) != (expected, glued)
sys.exit("changed: text is no longer glued by box, or no longer right by range" if changed else 0)
END
