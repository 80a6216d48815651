"""Take a document out of a multipart body, on the way to the database, within a size and a time.

The body is never held as a whole: what is beyond a megabyte waits in a temporary file.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import unquote

from litestar.types import Receive
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from assistant_api import errors
from assistant_api.disconnect import ClientDisconnectedError
from assistant_api.errors import ApiError, invalid_field
from assistant_api.knowledge import media
from assistant_api.knowledge.repository import MAX_PART_BYTES

MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
MAX_BODY_BYTES = MAX_DOCUMENT_BYTES + 64 * 1024  # the form around the document
MAX_NAME_CHARACTERS = 255
# Each may fill its temporary file, and the pod's scratch volume is small.
MAX_CONCURRENT_UPLOADS = 4
UPLOAD_QUEUE_TIMEOUT_SECONDS = 20.0
IDLE_TIMEOUT_SECONDS = 30.0
UPLOAD_TIMEOUT_SECONDS = 300.0
_FIELD = "file"
_EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^\s;]+)", re.IGNORECASE)


@dataclass
class Upload:
    """A document that has arrived; its content is read with `parts`."""

    file: BinaryIO
    name: str = ""
    size: int = 0
    head: bytes = b""
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """Digest of the content, hexadecimal."""
        return self._hash.hexdigest()

    def append(self, content: bytes) -> None:
        """Add bytes that have arrived; ApiError when the document gets too large."""
        self.size += len(content)
        if self.size > MAX_DOCUMENT_BYTES:
            raise too_large()
        if len(self.head) < media.SNIFF_BYTES:
            self.head += content[: media.SNIFF_BYTES - len(self.head)]
        self._hash.update(content)
        self.file.write(content)

    def parts(self) -> Iterator[bytes]:
        """Yield the content in the parts in which it is stored."""
        self.file.seek(0)
        while part := self.file.read(MAX_PART_BYTES):
            yield part


@contextmanager
def empty_upload() -> Iterator[Upload]:
    """Give an upload to fill; its temporary file goes at the end."""
    with tempfile.SpooledTemporaryFile(max_size=MAX_PART_BYTES) as file:
        yield Upload(cast("BinaryIO", file))


def boundary_of(content_type: str) -> str:
    """Return the boundary of a multipart body; ApiError for any other content type."""
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise errors.content_type_not("multipart/form-data")
    return str(options["boundary"])


def too_large() -> ApiError:
    """Return the error of a document beyond the limit."""
    return ApiError(errors.DOCUMENT_TOO_LARGE, field=_FIELD, limit=MAX_DOCUMENT_BYTES)


async def receive(upload: Upload, boundary: str, body: AsyncIterator[bytes]) -> None:
    """Read the form and fill `upload` with its one file. ApiError when the form is not what it should be."""
    try:
        with PushMultipartParser(boundary, max_segment_count=16) as parser:
            inside = False
            async for chunk in body:
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        inside = _begin(upload, event)
                    elif event is not None and inside:
                        upload.append(bytes(event))
                if parser.closed:
                    break
    except MultipartError as error:
        raise invalid_field(_FIELD, "multipart") from error
    if not upload.name:
        raise invalid_field(_FIELD, "missing")
    if not upload.size:
        raise invalid_field(_FIELD, "empty")


async def body_of(receive_message: Receive) -> AsyncIterator[bytes]:
    """Yield the body of a request as it arrives. ApiError when it is too slow or too large."""
    size = 0
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_SECONDS):
            while True:
                async with asyncio.timeout(IDLE_TIMEOUT_SECONDS):
                    message = await receive_message()
                if message["type"] != "http.request":
                    raise ClientDisconnectedError
                content = message["body"]
                size += len(content)
                if size > MAX_BODY_BYTES:
                    raise too_large()
                if content:
                    yield content
                if not message.get("more_body", False):
                    return
    except TimeoutError as error:
        raise ApiError(errors.REQUEST_TIMEOUT) from error


def _begin(upload: Upload, segment: MultipartSegment) -> bool:
    """Return whether the segment that begins is the document; other fields of the form are passed over."""
    if segment.name != _FIELD:
        return False
    if upload.name:
        raise invalid_field(_FIELD, "single")
    upload.name = clean_name(_extended_name(segment.header("Content-Disposition", "")) or segment.filename or "")
    return True


def _extended_name(disposition: str) -> str | None:
    """Return the name in `filename*`, which wins over `filename` (RFC 6266 4.3, written as RFC 8187 says)."""
    found = _EXTENDED_NAME.search(disposition)
    if found is None:
        return None
    try:
        return unquote(found[2], encoding=found[1], errors="strict")
    except (LookupError, UnicodeDecodeError):
        return None


def clean_name(name: str) -> str:
    """Return the file name without folders and invisible characters. ApiError when nothing, or too much, is left."""
    base = PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/")).name
    visible = "".join(character for character in base if unicodedata.category(character)[0] != "C").strip()
    if not visible:
        raise invalid_field(_FIELD, "filename")
    if len(visible) > MAX_NAME_CHARACTERS:
        raise invalid_field(_FIELD, "filename_length")
    return visible


class Uploads:
    """Admission of uploads: MAX_CONCURRENT_UPLOADS at a time in one process."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_CONCURRENT_UPLOADS)

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Hold a place for one upload; ApiError 503 when none gets free in time."""
        try:
            async with asyncio.timeout(UPLOAD_QUEUE_TIMEOUT_SECONDS):
                await self._places.acquire()
        except TimeoutError as error:
            raise ApiError(errors.TOO_MANY_UPLOADS, retry_after=UPLOAD_QUEUE_TIMEOUT_SECONDS) from error
        try:
            yield
        finally:
            self._places.release()
