"""Everything that signing in needs, built once: keys, the pool for passwords, revoked sessions, the audit log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from litestar.connection import ASGIConnection

from assistant_api.audit.service import Audit, Event, Origin
from assistant_api.auth import repository
from assistant_api.auth.passwords import Passwords
from assistant_api.auth.revocations import REVOCATION_TTL_SECONDS, Revocations
from assistant_api.auth.schemas import USER, Identity
from assistant_api.auth.tokens import MAX_TOKEN_LENGTH, SEED_BYTES, Claims, InvalidTokenError, Tokens
from assistant_api.clients import Database
from assistant_api.config import Settings
from assistant_api.database.errors import DATABASE_ERRORS
from assistant_api.errors import INVALID_TOKEN, SIGN_IN_UNAVAILABLE, ApiError, request_id
from assistant_api.tenant_config import ActiveConfig, TenantConfigHolder
from assistant_observability import logs, metrics

_BEARER = "bearer "
_DENIAL_AUDIT_INTERVAL_SECONDS = 60.0  # seconds between entries of the audit log for the same refusal
_MAX_DENIALS_REMEMBERED = 1000

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Keys:
    """What the operator made for the tenant; None in a Secret of an older release: nobody can sign in then."""

    signing: bytes | None = None
    audit: bytes | None = None
    admin_dir: Path = Path("/nonexistent")

    def __repr__(self) -> str:
        return "Keys(***)"

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """Return the keys among the settings."""
        signing, audit = (
            _seed(each.get_secret_value() if each else "") for each in (settings.signing_key, settings.audit_key)
        )
        return cls(signing, audit, settings.admin_dir)


def _seed(written: str) -> bytes | None:
    try:
        seed = base64.b64decode(f"{written.strip()}=", altchars=b"-_", validate=True)
    except ValueError:
        return None
    return seed if len(seed) == SEED_BYTES else None


def is_token(authorization: str | None) -> bool:
    """Whether a header carries an access token; API keys do not begin like one."""
    return authorization is not None and authorization[7:10] == "eyJ"


class Accounts:
    """The people of a tenant, as far as a process keeps anything of them."""

    def __init__(self, config: TenantConfigHolder, database: Database, keys: Keys, languages: list[str]) -> None:
        self.config = config
        self.database = database
        self.keys = keys
        self.languages = languages
        self.passwords = Passwords()
        self.revocations = Revocations(self._revoked)
        self.owner_is_there = False  # once there was one there always is
        self._tokens: Tokens | None = None
        self._denied: dict[tuple[str, str], float] = {}

    @property
    def tenant(self) -> str:
        """The tenant's name in the stores."""
        return self.config.current.document.tenant.key

    @property
    def audit(self) -> Audit:
        """The audit log; ApiError while its key is missing."""
        if self.keys.audit is None:
            raise ApiError(SIGN_IN_UNAVAILABLE, retry_after=30)
        return Audit(self.keys.audit)

    async def tokens(self) -> Tokens:
        """Return what makes and checks access tokens; ApiError while the key is missing."""
        seed = self.keys.signing
        if seed is None or self.keys.audit is None:
            raise ApiError(SIGN_IN_UNAVAILABLE, retry_after=30)
        if self._tokens is None:  # in a thread, so that streams go on while it is imported
            self._tokens = await asyncio.to_thread(Tokens, seed)
        return self._tokens

    def successor(self, refresh_token: str) -> str:
        """Return the refresh token that follows another: the same one for a retry, and nobody else can compute it."""
        key = hmac.digest(self.keys.signing or b"", b"refresh tokens", hashlib.sha256)
        mac = hmac.digest(key, refresh_token.encode(), hashlib.sha256)
        return f"rt_{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    async def identify(self, authorization: str, active_config: ActiveConfig) -> Identity:
        """Return who sent this access token; the 401 does not say what is wrong with it."""
        scheme, token = authorization[: len(_BEARER)], authorization[len(_BEARER) :]
        claims: Claims | None = None
        if scheme.lower() == _BEARER and len(token) <= MAX_TOKEN_LENGTH:
            with contextlib.suppress(InvalidTokenError):
                claims = (await self.tokens()).verify(token, active_config.document.tenant.key)
        if claims is None or await self.revocations.revoked(claims):
            metrics.IDENTITY_FAILURES.labels("api", "token").inc()
            raise ApiError(INVALID_TOKEN)
        return Identity(kind=USER, name=str(claims.sub), role=claims.role, session=claims.sid)

    async def denied(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Write down that a caller may not do what it asked for; the same refusal once a minute."""
        identity: Identity = connection.scope["auth"]
        action = f"{connection.scope.get('method', '')} {connection.scope.get('path_template', '')}"
        key, now = (identity.user, action), time.monotonic()
        if self.keys.audit is None or now - self._denied.get(key, float("-inf")) < _DENIAL_AUDIT_INTERVAL_SECONDS:
            return
        if len(self._denied) >= _MAX_DENIALS_REMEMBERED:
            self._denied.clear()
        self._denied[key] = now
        event = Event("permission", "denied", identity.kind, identity.name, details={"request": action})
        try:
            async with self.database.transaction() as transaction:
                await self.audit.record(transaction, event, origin_of(connection))
        except DATABASE_ERRORS as error:
            _log.warning("a refusal could not be written down", reason=type(error).__name__)

    def close(self) -> None:
        """Stop."""
        self.passwords.close()

    async def _revoked(self) -> list[tuple[UUID, int | None]]:
        async with self.database.reading() as connection:
            return await repository.revoked(connection, REVOCATION_TTL_SECONDS)


def origin_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Origin:
    """Return where a request came from: the other end of the connection, whatever headers say."""
    client = connection.scope.get("client")
    agent = "".join(letter for letter in connection.headers.get("user-agent", "")[:200] if letter.isprintable())
    return Origin(client[0] if client else "", agent, request_id(connection.scope))
