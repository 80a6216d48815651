"""Access tokens: JWTs (RFC 9068) that this tenant's API signs with EdDSA and that it alone takes.

A token is taken only if it is, byte for byte, one that `issue` could have made: the header is compared, not
interpreted, so that no algorithm, key or address that a header names is ever followed (RFC 8725); the claims must be
in their one canonical form. Others verify the tokens with any JWT library and the published key (JWKS).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from assistant_api.decoding import MALFORMED

if TYPE_CHECKING:  # imported when the first token is made or checked: most tenants use API keys only
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ACCESS_TOKEN_TTL_SECONDS = 600
TYPE = "at+jwt"
AUDIENCE = "assistant-api"
MAX_TOKEN_LENGTH = 2048
SEED_BYTES = 32
_CLOCK_SKEW_SECONDS = 30  # seconds that another pod's clock may be ahead
_MAX_VERIFIED_TOKENS = 2048  # tokens whose signature was found right


class InvalidTokenError(Exception):
    """It is no token of this tenant, or its time is over."""


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token says; `ver` is the version of the user for which it was made."""

    iss: str
    aud: str
    sub: UUID
    sid: UUID
    jti: str
    iat: int
    exp: int
    role: str
    ver: int


@dataclass(frozen=True, slots=True)
class Subject:
    """For whom a token is made."""

    user: UUID
    session: UUID
    role: str
    version: int


def issuer(tenant: str) -> str:
    """Return the `iss` of a tenant's tokens, from the name that it has in every store."""
    return f"urn:assistantplatform:tenant:{tenant}"


def encode64(content: bytes) -> bytes:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def decode64(text: bytes) -> bytes:
    """Return what `encode64` made this of; InvalidTokenError when it could not have."""
    try:
        content = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidTokenError from error
    if encode64(content) != text:
        raise InvalidTokenError
    return content


class Tokens:
    """Makes and checks the tokens of one tenant; `seed` is the private Ed25519 key (RFC 8032)."""

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  see above
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

        self._private: Ed25519PrivateKey = Ed25519PrivateKey.from_private_bytes(seed)
        self._public: Ed25519PublicKey = self._private.public_key()
        self._x = encode64(self._public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
        # RFC 7638: the required members in alphabetical order.
        thumbprint = hashlib.sha256(msgspec.json.encode({"crv": "Ed25519", "kty": "OKP", "x": self._x})).digest()
        self.kid = encode64(thumbprint).decode()
        header = msgspec.json.encode({"alg": "EdDSA", "kid": self.kid, "typ": TYPE})
        self._header = encode64(header)
        self._known: dict[bytes, Claims] = {}

    def jwks(self) -> dict[str, Any]:
        """Return the key set (RFC 7517, RFC 8037) by which others check the tokens."""
        key = {"kty": "OKP", "crv": "Ed25519", "x": self._x, "kid": self.kid, "alg": "EdDSA", "use": "sig"}
        return {"keys": [key]}

    def issue(self, subject: Subject, tenant: str, now: float | None = None) -> str:
        """Return a token that holds for SECONDS."""
        issued = int(time.time() if now is None else now)
        claims = Claims(
            iss=issuer(tenant),
            aud=AUDIENCE,
            sub=subject.user,
            sid=subject.session,
            jti=secrets.token_urlsafe(16),
            iat=issued,
            exp=issued + ACCESS_TOKEN_TTL_SECONDS,
            role=subject.role,
            ver=subject.version,
        )
        signed = self._header + b"." + encode64(msgspec.json.encode(claims))
        return (signed + b"." + encode64(self._private.sign(signed))).decode()

    def verify(self, token: str, tenant: str, now: float | None = None) -> Claims:
        """Return what the token says; InvalidTokenError when it is not to be believed."""
        moment = time.time() if now is None else now
        if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
            raise InvalidTokenError
        written = token.encode()
        digest = hashlib.sha256(written).digest()
        claims = self._known.get(digest)
        if claims is None:
            claims = self._read(written)
            if len(self._known) >= _MAX_VERIFIED_TOKENS:
                del self._known[next(iter(self._known))]
            self._known[digest] = claims
        if claims.iss != issuer(tenant) or claims.aud != AUDIENCE:
            raise InvalidTokenError
        if (
            not claims.iat - _CLOCK_SKEW_SECONDS <= moment < claims.exp
            or claims.exp - claims.iat > ACCESS_TOKEN_TTL_SECONDS
        ):
            raise InvalidTokenError
        return claims

    def _read(self, written: bytes) -> Claims:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  see above

        signed, _, signature = written.rpartition(b".")
        header, _, payload = signed.partition(b".")
        if header != self._header:
            raise InvalidTokenError
        try:
            self._public.verify(decode64(signature), signed)
        except InvalidSignature as error:
            raise InvalidTokenError from error
        content = decode64(payload)
        try:
            claims = msgspec.json.decode(content, type=Claims)
        except MALFORMED as error:
            raise InvalidTokenError from error
        # A member that is written twice, or in another form, would be read by others in another way.
        if msgspec.json.encode(claims) != content:
            raise InvalidTokenError
        return claims
