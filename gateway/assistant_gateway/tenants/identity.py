"""Who calls: projected ServiceAccount tokens, checked against the cluster's own signing keys.

No secret is shared with tenants. The tenant is the namespace in a token that only the cluster can have signed for
this audience. A verified token is remembered by its hash until it expires, so that a call costs a hash and a
look-up; the signature is checked once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt
import msgspec

from assistant_crds import naming
from assistant_gateway import errors
from assistant_gateway.tenants.kubernetes import ClusterError
from assistant_observability import logs, metrics

ALGORITHMS = ("RS256", "ES256", "ES384", "ES512")  # what Kubernetes signs with; never HMAC, never none
REFRESH_SECONDS = 300.0
REFRESH_AT_MOST_EVERY = 10.0  # for unknown key ids, which anyone can make up
RETRY_SECONDS = (0.2, 5.0)
CLOCK_LEEWAY_SECONDS = 10
REMEMBERED_TOKENS = 10_000
LONGEST_TOKEN = 16_384
OPERATOR = naming.MANAGED_BY  # the operator's ServiceAccount

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller, by name; whether it is the account that has the name now is for `require` to say."""

    namespace: str
    service_account: str
    uid: str = field(default="", compare=False)  # of the ServiceAccount


class Documents(Protocol):
    """Where the cluster's discovery documents come from."""

    async def get(self, path: str) -> bytes:
        """Return the document at `path`."""


class _Discovery(msgspec.Struct):
    issuer: str


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class SigningKeys:
    """The cluster's public keys by key id, kept fresh; the last good ones are kept while the API server is away."""

    def __init__(self, cluster: Documents, issuer: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._configured_issuer = issuer
        self._document = b""
        self._keys: dict[str, jwt.PyJWK] = {}
        self._attempted = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self.issuer = issuer
        self.version = 0  # changes when the set of keys does

    @property
    def loaded(self) -> bool:
        """Whether tokens can be checked at all."""
        return bool(self._keys) and bool(self.issuer)

    async def run(self) -> None:
        """Load the keys and keep them fresh, for ever."""
        delay = RETRY_SECONDS[0]
        while True:
            try:
                await self.refresh()
                delay = RETRY_SECONDS[0]
                await asyncio.sleep(REFRESH_SECONDS)
            except (ClusterError, msgspec.MsgspecError, jwt.PyJWTError) as error:
                _log.warning("signing keys not loaded", error=str(error), have_keys=len(self._keys))
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
                delay = min(delay * 2, RETRY_SECONDS[1])

    async def refresh(self) -> None:
        """Load issuer and keys now.

        Raises:
            ClusterError: the API server did not answer.
            msgspec.MsgspecError, jwt.PyJWTError: it answered with something else.
        """
        self._attempted = self._clock()
        if not self._configured_issuer:
            document = await self._cluster.get("/.well-known/openid-configuration")
            self.issuer = msgspec.json.decode(document, type=_Discovery).issuer
        document = await self._cluster.get("/openid/v1/jwks")
        if document == self._document:
            return
        keys = {}
        for jwk in msgspec.json.decode(document, type=_KeySet).keys:
            if not jwk.get("kid") or jwk.get("use", "sig") != "sig":
                continue
            try:
                keys[jwk["kid"]] = jwt.PyJWK.from_dict(jwk)
            except jwt.PyJWTError as error:  # one of a kind that is not known here; the others count
                _log.warning("signing key not understood", kid=str(jwk["kid"]), error=str(error))
        self._keys, self._document = keys, document
        self.version += 1
        _log.info("signing keys loaded", keys=len(keys), issuer=self.issuer)

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Return the key with this id, asking the cluster once more when it is unknown, though not too often."""
        key = self._keys.get(kid)
        if key is not None:
            return key
        if self._refreshing is None:
            if self._clock() - self._attempted < REFRESH_AT_MOST_EVERY:
                return None
            self._refreshing = asyncio.create_task(self._refresh_once())
        await asyncio.shield(self._refreshing)
        return self._keys.get(kid)

    async def _refresh_once(self) -> None:
        try:
            await self.refresh()
        except (ClusterError, msgspec.MsgspecError, jwt.PyJWTError) as error:
            _log.warning("signing keys not loaded", error=str(error), have_keys=len(self._keys))
        finally:
            self._refreshing = None


class Authenticator:
    """Turns an `Authorization` header into an `Identity`."""

    def __init__(self, keys: SigningKeys, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._remembered: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        self._version = keys.version

    async def identify(self, authorization: str | None) -> Identity:
        """Return who calls.

        Raises:
            GatewayError: 401, with a reason that helps the honest and tells the others nothing new.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > LONGEST_TOKEN or not token.isascii():
            raise _refused("no_token", "Send a ServiceAccount token: Authorization: Bearer <token>.")
        if self._version != self._keys.version:  # a key that is gone no longer vouches for anyone
            self._remembered.clear()
            self._version = self._keys.version
        digest = hashlib.sha256(token.encode()).digest()
        known = self._remembered.get(digest)
        if known is not None:
            identity, expires = known
            if self._clock() < expires:
                self._remembered.move_to_end(digest)
                return identity
            del self._remembered[digest]
        identity, expires = await self._verify(token)
        self._remembered[digest] = (identity, expires)
        if len(self._remembered) > REMEMBERED_TOKENS:
            self._remembered.popitem(last=False)
        return identity

    async def _verify(self, token: str) -> tuple[Identity, float]:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, RecursionError):  # nested without end
            raise _refused("malformed", "The token is not a JSON Web Token.") from None
        key = await self._keys.find(kid) if isinstance(kid, str) else None
        if key is None:
            raise _refused("unknown_key", "The token was not signed by this cluster.")
        try:
            claims = jwt.decode(
                token,
                key=key,
                algorithms=list(ALGORITHMS),
                audience=naming.GATEWAY_AUDIENCE,
                issuer=self._keys.issuer,
                leeway=CLOCK_LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise _refused("expired", "The token has expired; read the projected file again.") from None
        except jwt.InvalidAudienceError:
            message = f"The token is not for the audience {naming.GATEWAY_AUDIENCE!r}."
            raise _refused("audience", message) from None
        except jwt.InvalidIssuerError:
            raise _refused("issuer", "The token's issuer is not this cluster.") from None
        except (jwt.PyJWTError, RecursionError):
            raise _refused("invalid", "The token is not valid.") from None
        return _identity(claims), float(claims["exp"])


def _identity(claims: dict[str, Any]) -> Identity:
    with contextlib.suppress(KeyError, TypeError):
        bound = claims["kubernetes.io"]
        account = bound["serviceaccount"]
        identity = Identity(bound["namespace"], account["name"], account.get("uid", ""))
        if claims["sub"] == f"system:serviceaccount:{identity.namespace}:{identity.service_account}":
            return identity
    raise _refused("claims", "The token names no ServiceAccount.")


def require(identity: Identity, uid: str | None) -> None:
    """Let nobody pass as the account of that UID who only has its name: tokens outlive accounts and namespaces.

    None lets everyone of that name pass: the operator that wrote it knew of no UIDs.

    Raises:
        GatewayError: 401.
    """
    if uid is not None and identity.uid != uid:
        raise _refused("account", "The token's ServiceAccount is not the one that the tenant has now.")


def _refused(reason: str, message: str) -> errors.GatewayError:
    metrics.IDENTITY_FAILURES.labels("gateway", reason).inc()
    return errors.invalid_key(message)
