"""Cross-origin requests: which web pages' scripts may call the API and read its answers.

Off unless the tenant's configuration names origins. Callers prove themselves by a header, never by a cookie, so no
credentials are allowed: a page can do nothing here that its own key does not let it do.
Source: the Fetch standard, "HTTP-CORS protocol".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from litestar.types import Scope

from assistant_api.asgi import BufferedResponse, headers_of

Headers = tuple[tuple[bytes, bytes], ...]
ORIGIN = b"origin"
ANY = "*"
_METHODS = "GET, POST, DELETE"
_PREFLIGHT_TTL_SECONDS = 600
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2000}")  # tokens of RFC 9110, with commas between them
# What scripts may read of an answer beyond the names that the standard allows.
EXPOSED = (
    "content-language, content-disposition, retry-after, retry-after-ms, www-authenticate, x-assistant-model,"
    " x-budget-currency, x-budget-limit, x-budget-remaining, x-budget-reset, x-ratelimit-degraded,"
    " x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests,"
    " x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens, x-request-id,"
    " x-should-retry, x-next-cursor, x-usage-as-of, x-usage-pending-requests"
)


def headers_for(origin: str, allowed: Sequence[str]) -> Headers:
    """Return what an answer to a page of this origin says; nothing where it is not allowed."""
    if ANY in allowed:
        return _headers(ANY)
    return _headers(origin) if origin in allowed else ()


def preflight(scope: Scope) -> BufferedResponse | None:
    """Return the answer to a browser that asks beforehand, None where this OPTIONS is no such question.

    It carries no key and says nothing of what there is. All headers that the page wants to send may be sent: clients
    add their own, such as `x-stainless-lang`.
    """
    asked = headers_of(scope)
    if "access-control-request-method" not in asked:
        return None
    scope["state"]["code"] = "preflight"
    answer = {"access-control-allow-methods": _METHODS, "access-control-max-age": str(_PREFLIGHT_TTL_SECONDS)}
    wanted = asked.get("access-control-request-headers", "")
    if _NAMES.fullmatch(wanted):
        answer["access-control-allow-headers"] = wanted
    return BufferedResponse(200, answer, b"", "text/plain")


@lru_cache(maxsize=64)
def _headers(origin: str) -> Headers:
    told = [("access-control-allow-origin", origin), ("access-control-expose-headers", EXPOSED)]
    if origin != ANY:
        told.append(("vary", "Origin"))
    return tuple((name.encode(), value.encode("latin-1")) for name, value in told)
