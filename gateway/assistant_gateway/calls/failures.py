"""What answers a request that has failed, whatever went wrong."""

from __future__ import annotations

import asyncio

from aiohttp import web

from assistant_gateway import errors
from assistant_gateway.calls.request_log import Line
from assistant_gateway.errors import GatewayError
from assistant_observability import logs

_log = logs.logger(__name__)


def answer(error: BaseException, line: Line, route: str) -> web.Response:
    """Return what answers a request that has failed.

    Raises:
        ConnectionError, asyncio.CancelledError: the client has gone.
    """
    if isinstance(error, GatewayError):
        errors.let_go(error)
        translated = error
    elif isinstance(error, web.HTTPException):
        translated = _from_http(error)
    elif isinstance(error, ConnectionError | asyncio.CancelledError):
        line.code = "client_gone"
        raise error
    else:
        _log.error("request failed", route=route, request_id=line.request_id, exc_info=error)
        errors.let_go(error)
        translated = GatewayError(500, "internal_error", "The gateway failed.", kind=errors.SERVER)
    line.code = translated.code
    return _answer(translated)


def header_text(text: str) -> str:
    """Return `text` as a header can carry it: a model's name may hold anything."""
    if not text.isprintable():
        return "?"
    return text if text.isascii() else text.encode("ascii", "replace").decode()


def _answer(error: GatewayError) -> web.Response:
    headers = {name: header_text(value) for name, value in error.headers.items()}
    return web.Response(status=error.status, body=error.body(), content_type="application/json", headers=headers)


def _from_http(error: web.HTTPException) -> GatewayError:
    if error.status == 413:
        return GatewayError(413, "request_too_large", "The body is larger than the gateway takes.")
    if error.status == 404:
        return GatewayError(404, "not_found", "This address does not exist.")
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return GatewayError(error.status, "http_error", error.reason, headers=headers)
