#!/usr/bin/env bash
# Package:  pypdfium2==5.15.2 (PDFium 159.0.8149.0); reportlab==5.1.0 writes the page
# Expected: a hyphen U+002D at the end of a printed line is in the text. Sources: ISO 32000-1, 14.8.2.2.3
#           "Hyphenation" (a hyphen that is only there for the line's end is U+00AD, so that readers need not guess);
#           The Unicode Standard, 23.7 "Noncharacters" (U+FFFE is not for interchange).
# Seen:     `get_text_range()` gives U+FFFE for the hyphen and the line's end, `get_text_bounded()` U+0002: "Model X-"
#           and "200" on the next line become one word without a hyphen. After a digit both stay.
# Here:     api/assistant_api/knowledge/pdf_text.py decides by the words around it.
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


def read(*lines):
    """Return the text of a page with these lines, read by range and by box."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(595, 842))
    for number, line in enumerate(lines):
        canvas.drawString(60, 700 - 14 * number, line)
    canvas.save()
    page = pypdfium2.PdfDocument(file.getvalue())[0].get_textpage()
    return page.get_text_range(), page.get_text_bounded()


changed = False
for lines, seen in (
    (("Order the Model X-", "200 pump"), ("Order the Model X\ufffe200 pump", "Order the Model X\x02200 pump")),
    (("Order the Model 7-", "200 pump"), ("Order the Model 7-\r\n200 pump", "Order the Model 7-\r\n200 pump")),
):
    found = read(*lines)
    print(f"expected {ascii(chr(10).join(lines))}, seen {ascii(found[0])} by range, {ascii(found[1])} by box")
    changed |= found != seen
sys.exit("changed: hyphens at the end of a line are read otherwise" if changed else 0)
END
