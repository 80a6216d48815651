"""`/` and `/assets`: the page; `/api/v1/locales`: its sentences. No part of the API that is described at `/schema`."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get
from litestar.datastructures import State
from litestar.params import FromPath

from assistant_api.asgi import JSON
from assistant_api.errors import NOT_FOUND, ApiError
from assistant_api.i18n import Catalogs
from assistant_api.page.files import HEADERS, File, Files

PREFIX = "page."
_FOREVER = "public, max-age=31536000, immutable"  # a file of another content has another name
_ASK_AGAIN = "no-cache"

Call = Request[Any, Any, State]


class PageController(Controller):
    """The files of the page."""

    include_in_schema = False

    @get("/", sync_to_thread=False)
    def index(self, request: Call) -> Response[bytes]:
        """Return the document that loads the rest."""
        files: Files = request.app.state.page
        return _answer(request, files.index, _ASK_AGAIN)

    @get("/assets/{name:str}", sync_to_thread=False)
    def asset(self, request: Call, name: FromPath[str]) -> Response[bytes]:
        """Return a script, a style sheet or a picture."""
        files: Files = request.app.state.page
        found = files.assets.get(name)
        if found is None:
            raise ApiError(NOT_FOUND)
        return _answer(request, found, _FOREVER)


class LocaleController(Controller):
    """The sentences of the page, which everybody may read."""

    path = "/locales"
    include_in_schema = False

    @get("/{language:str}", sync_to_thread=False)
    def sentences(self, request: Call, language: FromPath[str]) -> Response[bytes]:
        """Return the page's sentences in a language, by their keys without `page.`."""
        catalogs: Catalogs = request.app.state.catalogs
        if language not in catalogs.languages:
            raise ApiError(NOT_FOUND)
        content, tag = _catalogue(catalogs, language)
        headers = {"cache-control": _ASK_AGAIN, "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(b"", status_code=304, headers=headers, media_type=JSON)
        return Response(content, headers=headers, media_type=JSON)


def _answer(request: Call, file: File, caching: str) -> Response[bytes]:
    request.scope["state"]["security_headers"] = HEADERS
    headers = {"cache-control": caching, "vary": "Accept-Encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(file.content, media_type=file.media_type, headers=headers)
    return Response(file.packed, media_type=file.media_type, headers={**headers, "content-encoding": "gzip"})


@lru_cache(maxsize=8)
def _catalogue(catalogs: Catalogs, language: str) -> tuple[bytes, str]:
    content = msgspec.json.encode({"languages": catalogs.languages, "texts": catalogs.under(language, PREFIX)})
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
