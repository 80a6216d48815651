"""Where a document is read, and how a reader is led to a passage in it."""

from __future__ import annotations

from urllib.parse import quote

from assistant_api.knowledge.schemas import Passage

PREFIX = "/api/v1/knowledge-bases"
CONTENT = "content"
_FRAGMENT_WORDS = 8  # enough to be found only once, few enough to stay on one line of the document


def passage_path(passage: Passage) -> str:
    """Return the path of the document's content with the fragment that shows the passage.

    `#page=` is known to readers of PDF (RFC 8118); a text fragment (`#:~:text=`, WICG) to browsers, for text documents.
    Who knows neither opens the document at its beginning.
    """
    path = f"{PREFIX}/{quote(passage.knowledge_base, safe='')}/documents/{passage.document_id}/{CONTENT}"
    return path + (f"#page={passage.page}" if passage.page is not None else _text_fragment(passage.text))


def _text_fragment(text: str) -> str:
    """Return the beginning of the longest line: a passage may begin with headings that stand elsewhere."""
    words = max(text.splitlines() or [""], key=len).split()[:_FRAGMENT_WORDS]
    # A dash is part of the fragment's own syntax, so it is escaped although a URL would not need it.
    return f"#:~:text={quote(' '.join(words), safe='').replace('-', '%2D')}" if words else ""
