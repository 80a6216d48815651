"""The version of parser and index."""

from __future__ import annotations

import hashlib

import msgspec
from fpdf import FPDF

from assistant_api.knowledge import media
from assistant_api.knowledge.chunking import chunk
from assistant_api.knowledge.folding import spellings
from assistant_api.knowledge.parsing import parse
from assistant_crds.contracts import INDEX_VERSION

MARKDOWN = """---
title: Rückgabe
tags: [Versand, Größen]
# internal: not for customers
---
# Rückgabe

Bis zu 30 Tage. Write to ops@example.com, version 1.38.8.

| Größe | Preis |
|---|---|
""" + "\n".join(f"| {size} | {size * 3},50 € |" for size in range(30))
LINES = ("Die Anlage ent-", "spricht ISO-", "9001, Be- und", "Entladen in Nordrhein-", "Westfalen.")


def _pdf() -> bytes:
    document = FPDF()
    document.add_page()
    document.set_font("Helvetica", size=11)
    for line in LINES:
        document.cell(0, 6, line, new_x="LMARGIN", new_y="NEXT")
    return bytes(document.output())


def test_what_changes_passages_raises_the_version() -> None:
    """A sample of documents becomes the same passages as when the version was set.

    If this fails, documents that are in already differ from what they would be today: raise
    `contracts.INDEX_VERSION`, so that they are offered to be read again, and set the new digest here.
    """
    documents = [
        (media.MARKDOWN, MARKDOWN.encode()),
        (media.TEXT, "Müller: 1\u00ad2\u200b3, ﬁx.\r\nكَتَبَ ١٢\x1a".encode()),
        (media.TEXT, "Preis: 5 € für Größe 40".encode("cp1252")),
        (media.PDF, _pdf()),
    ]
    passages = [
        (piece.page, piece.text, spellings(piece.text))
        for kind, content in documents
        for piece in chunk(kind, parse(kind, content), 60, 10)
    ]
    digest = hashlib.sha256(msgspec.json.encode(passages)).hexdigest()[:16]
    assert (INDEX_VERSION, digest) == (1, "60d3c3003ca509ae"), passages
