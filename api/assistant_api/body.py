"""Read a request's body within a size and a time."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Request
from litestar.datastructures import State

from assistant_api.errors import REQUEST_TIMEOUT, REQUEST_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, ApiError
from assistant_api.hangup import CallerGoneError

READ_SECONDS = 30.0
JSON = "application/json"


async def read_json_body(request: Request[Any, Any, State], limit: int) -> bytes:
    """Return the bytes of a JSON body of at most `limit` bytes; a missing content type is taken for JSON."""
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type != JSON and not media_type.endswith("+json"):
        raise ApiError(UNSUPPORTED_MEDIA_TYPE, expected=JSON)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise ApiError(REQUEST_TOO_LARGE, limit=limit)
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            while True:
                message = await request.receive()
                if message["type"] != "http.request":
                    raise CallerGoneError
                body += message["body"]
                if len(body) > limit:
                    raise ApiError(REQUEST_TOO_LARGE, limit=limit)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise ApiError(REQUEST_TIMEOUT) from error
