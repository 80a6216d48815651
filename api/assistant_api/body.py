"""Read a request's body within a size and a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from litestar.types import Receive

from assistant_api.asgi import JSON
from assistant_api.errors import REQUEST_TIMEOUT, REQUEST_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, ApiError
from assistant_api.hangup import CallerGoneError

READ_SECONDS = 30.0


async def read_json_body(headers: Mapping[str, str], receive: Receive, limit: int) -> bytes:
    """Return the bytes of a JSON body of at most `limit` bytes; a missing content type is taken for JSON."""
    media_type = headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type != JSON and not media_type.endswith("+json"):
        raise ApiError(UNSUPPORTED_MEDIA_TYPE, expected=JSON)
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise ApiError(REQUEST_TOO_LARGE, limit=limit)
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise CallerGoneError
                body += message["body"]
                if len(body) > limit:
                    raise ApiError(REQUEST_TOO_LARGE, limit=limit)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise ApiError(REQUEST_TIMEOUT) from error
