"""Give a document back as it was uploaded, so that a reader can look at the passage that an answer cites."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from urllib.parse import quote

from litestar.types import Receive, Scope, Send

from assistant_api.asgi import MAX_WRITE_BYTES, SEND_TIMEOUT_SECONDS
from assistant_api.clients import Database
from assistant_api.knowledge import media, repository
from assistant_api.knowledge.repository import StoredDocument

SHOWN_AS = {media.PDF: media.PDF}  # whatever else there is, is text: browsers show that, but save Markdown


class Content:
    """The ASGI response with a document's bytes; they are read as the caller takes them, so none waits in memory."""

    def __init__(self, database: Database, document: StoredDocument) -> None:
        self._database = database
        self._document = document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. What the database raises before the first byte is the caller's answer; later the connection ends."""
        del scope, receive
        pieces = self._pieces()
        head = await anext(pieces, b"")
        headers = [
            (b"content-type", _media_type(self._document, head).encode()),
            (b"content-length", str(self._document.bytes).encode()),
            (b"content-disposition", f"inline; filename*=UTF-8''{quote(self._document.name, safe='')}".encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        piece = head
        while piece:
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await anext(pieces, b"")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Yield the content; no connection is held while the caller takes a piece."""
        start = 0
        while start < self._document.bytes:
            async with self._database.reading() as connection:
                piece = await repository.piece(connection, self._document.id, start, MAX_WRITE_BYTES)
            if not piece:
                raise ConnectionError("the document was removed while it was read")
            yield piece
            start += len(piece)


def _media_type(document: StoredDocument, head: bytes) -> str:
    if (shown := SHOWN_AS.get(document.media_type)) is not None:
        return shown
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return media.TEXT  # an older encoding: the browser's guess is as good as ours
    return f"{media.TEXT}; charset=utf-8"
