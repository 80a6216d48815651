"""Sessions of browsers: both tokens are in cookies that no script can read, and count for the page's own requests only.

Over TLS the names begin with `__Host-`: no other host, not even one below the same domain, can set such a cookie.
Without TLS (a port-forward, a trial) browsers refuse that prefix, so the plain names are used. A cookie counts only
under the name of the scheme that it came by.

`SameSite=Strict` keeps other sites' requests from carrying the cookies. Tenants are often neighbours below one domain,
which is one *site*; so a request with a cookie has to come from this *origin*, and one that changes something has to
say so by a header, which no form can send.
Source: RFC 6265bis, sections 4.1.3 and 5.2; Fetch Metadata Request Headers, section 2.3.
"""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.handlers import BaseRouteHandler

from assistant_api.asgi import origin_of
from assistant_api.auth.accounts import is_token
from assistant_api.auth.schemas import TokenPair
from assistant_api.errors import CROSS_ORIGIN, ApiError

ACCESS, REFRESH = "assistant-access", "assistant-refresh"
SECURE_PREFIX = "__Host-"
PAGE_HEADER = "x-assistant-page"
_SAFE = frozenset({"GET", "HEAD"})

Connection = ASGIConnection[Any, Any, Any, Any]


def authorization_of(connection: Connection) -> str | None:
    """Return what a browser's cookie is worth as an `Authorization` header; ApiError if it came from elsewhere."""
    token = connection.cookies.get(_name(ACCESS, connection))
    if token is None or not is_token(authorization := f"Bearer {token}"):
        return None
    if connection.scope.get("method") in _SAFE:
        _check_fetch_site(connection)
    else:
        check_origin(connection)
    return authorization


def refresh_token_of(connection: Connection) -> str | None:
    """Return the refresh token among a browser's cookies."""
    return connection.cookies.get(_name(REFRESH, connection))


def check_origin(connection: Connection) -> None:
    """Refuse what the page of this origin has not sent by a script."""
    _check_fetch_site(connection)
    own = origin_of(connection.scope)
    if not own or connection.headers.get("origin") != own or PAGE_HEADER not in connection.headers:
        raise ApiError(CROSS_ORIGIN)


async def from_the_page(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Guard: see `check_origin`."""
    check_origin(connection)


def cookies(connection: Connection, pair: TokenPair) -> list[Cookie]:
    """Return the cookies of a session."""
    return [
        _cookie(connection, ACCESS, pair.access_token, pair.expires_in),
        _cookie(connection, REFRESH, pair.refresh_token, pair.refresh_expires_in),
    ]


def no_cookies(connection: Connection) -> list[Cookie]:
    """Return what takes the cookies of a session away."""
    return [_cookie(connection, name, "", 0) for name in (ACCESS, REFRESH)]


def _check_fetch_site(connection: Connection) -> None:
    # Browsers leave it out where the connection is not secure; `none` is an address that was typed.
    if connection.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        raise ApiError(CROSS_ORIGIN)


def _is_secure(connection: Connection) -> bool:
    return origin_of(connection.scope).startswith("https:")


def _name(name: str, connection: Connection) -> str:
    return f"{SECURE_PREFIX}{name}" if _is_secure(connection) else name


def _cookie(connection: Connection, name: str, value: str, seconds: int) -> Cookie:
    return Cookie(
        key=_name(name, connection),
        value=value,
        max_age=seconds,
        path="/",
        secure=_is_secure(connection),
        httponly=True,
        samesite="strict",
    )
