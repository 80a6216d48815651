"""Check the credential of a request: an API key, known here by its SHA-256 only, or an access token (`accounts.py`).

The keys have 256 random bits, so a plain hash is enough; a slow one would only make every request slow.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from assistant_api.auth import cookies
from assistant_api.auth.accounts import is_token
from assistant_api.auth.schemas import API_KEY, Identity
from assistant_api.errors import INVALID_API_KEY, ApiError
from assistant_api.gateway import on_behalf_of
from assistant_api.tenant_config import ActiveConfig
from assistant_observability import metrics

_PREFIX = "bearer "
_MAX_CREDENTIAL_LENGTH = 4096  # longer ones are not hashed


def identify(authorization: str | None, active_config: ActiveConfig) -> Identity:
    """Return who sent this `Authorization` header; the 401 does not say what is wrong with it."""
    if (
        not authorization
        or authorization[: len(_PREFIX)].lower() != _PREFIX
        or len(authorization) > _MAX_CREDENTIAL_LENGTH
    ):
        metrics.IDENTITY_FAILURES.labels("api", "missing").inc()
        raise ApiError(INVALID_API_KEY)
    digest = hashlib.sha256(authorization[len(_PREFIX) :].strip().encode()).digest()
    found: str | None = None
    # Every key is compared, each in constant time: the time taken tells nothing.
    for name, known in active_config.api_key_digests.items():
        if hmac.compare_digest(digest, known):
            found = name
    if found is None:
        metrics.IDENTITY_FAILURES.labels("api", "unknown").inc()
        raise ApiError(INVALID_API_KEY)
    return Identity(kind=API_KEY, name=found)


async def require_identity(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Litestar guard: let only known callers pass; handlers find the caller in `request.auth`.

    Asynchronous although it waits for nothing: Litestar runs synchronous guards in a thread, at 0.2 ms each.
    """
    state = connection.app.state
    active_config: ActiveConfig = state.config.current
    authorization = connection.headers.get("authorization")
    if authorization is None:
        authorization = cookies.authorization_of(connection)
    if authorization is not None and is_token(authorization):
        identity = await state.accounts.identify(authorization, active_config)
    else:
        identity = identify(authorization, active_config)
    connection.scope["auth"] = identity
    connection.scope["state"]["key"] = identity.name
    on_behalf_of(identity.user)
