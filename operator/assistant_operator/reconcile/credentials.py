"""The tenant's secrets: kept as they are, made where they are missing, never derived from anything.

The cluster's Secret is the only copy. It is written before the database and Redis learn a password, so that a
password that is in use is never lost; Weaviate makes its keys itself, so there the order is the other way round.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

from assistant_crds import naming
from assistant_operator.config import Settings, with_query
from assistant_operator.desired.deployment import STORES_FOLDER
from assistant_operator.desired.platform import Credentials
from assistant_operator.tenant.snapshot import Json

API_KEY = re.compile(r"ak_[A-Za-z0-9_-]{43}")
_PASSWORD = re.compile(r"[A-Za-z0-9_-]{32,128}")
_SEED = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 random bytes as base64url
# A tenant may choose its first owner's email address and password, as long as nobody has signed in.
_ADMIN_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,190}")
_ADMIN_PASSWORD = re.compile(r"[!-~]{12,128}")
# As Weaviate makes them (base64); a tenant may write anything else into its Secret.
_WEAVIATE_KEY = re.compile(r"[A-Za-z0-9+/=_-]{1,512}")


def credentials(owned: Mapping[tuple[str, str], Json], tenant: str, settings: Settings, namespace: str) -> Credentials:
    """Return the tenant's credentials: what its Secrets hold where that is usable, new ones where it is not."""
    held = _values(owned.get(("Secret", naming.STORES_SECRET)))
    postgres_password = _password(held.get("postgres_dsn", ""))
    redis_password = _password(held.get("redis_url", ""))
    redis_scheme = urlsplit(settings.redis_url.get_secret_value()).scheme
    weaviate_key = held.get("weaviate_api_key", "")
    admin = _values(owned.get(("Secret", naming.ADMIN_SECRET)))
    email, password = admin.get(naming.ADMIN_EMAIL, ""), admin.get(naming.ADMIN_PASSWORD, "")
    api_key = _values(owned.get(("Secret", naming.API_KEY_SECRET))).get(naming.API_KEY_KEY, "")
    return Credentials(
        stores={
            "postgres_dsn": with_query(
                f"postgresql://{naming.login_role(tenant)}:{postgres_password}@{settings.tenant_postgres}"
                f"/{naming.database(tenant)}",
                **_tls(settings),
            ),
            **({"postgres_ca": settings.postgres_ca} if settings.postgres_ca else {}),
            "redis_url": f"{redis_scheme}://{naming.redis_user(tenant)}:{redis_password}@{settings.tenant_redis}/0",
            "weaviate_url": settings.tenant_weaviate_url,
            "weaviate_grpc": settings.tenant_weaviate_grpc,
            "weaviate_api_key": weaviate_key if _WEAVIATE_KEY.fullmatch(weaviate_key) else "",
            naming.SIGNING_KEY: _seed(held.get(naming.SIGNING_KEY, "")),
            naming.AUDIT_KEY: _seed(held.get(naming.AUDIT_KEY, "")),
        },
        api_key=api_key if API_KEY.fullmatch(api_key) else f"ak_{secrets.token_urlsafe(32)}",
        # Mail to `.invalid` goes nowhere (RFC 2606): the owner gives a real address later.
        admin_email=email if _ADMIN_EMAIL.fullmatch(email) else f"admin@{namespace}.invalid",
        admin_password=password if _ADMIN_PASSWORD.fullmatch(password) else secrets.token_urlsafe(18),
    )


def _tls(settings: Settings) -> dict[str, str]:
    """Return what the tenants' DSN says of TLS: what the operator's does, with the authority where pods find it."""
    asked = dict(parse_qsl(urlsplit(settings.postgres_dsn.get_secret_value()).query))
    mode = asked.get("sslmode", "verify-full" if settings.postgres_ca else "")
    return {
        **({"sslmode": mode} if mode else {}),
        **({"sslrootcert": f"{STORES_FOLDER}/postgres_ca"} if settings.postgres_ca else {}),
    }


def passwords(wanted: Credentials) -> tuple[str, str]:
    """Return the Postgres and the Redis password."""
    return (urlsplit(wanted.stores["postgres_dsn"]).password or "", urlsplit(wanted.stores["redis_url"]).password or "")


def with_weaviate_key(wanted: Credentials, key: str) -> Credentials:
    """Return the credentials with another Weaviate key."""
    return replace(wanted, stores={**wanted.stores, "weaviate_api_key": key})


def _password(url: str) -> str:
    """Return the password in a URL that we changed, or a new one when there is none of that form."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        password = ""
    return password if _PASSWORD.fullmatch(password) else secrets.token_urlsafe(32)


def _seed(written: str) -> str:
    """Return a key of ours as it is, or a new one when there is none of that form."""
    return written if _SEED.fullmatch(written) else secrets.token_urlsafe(32)


def _values(secret: Json | None) -> dict[str, str]:
    values = {}
    for key, encoded in ((secret or {}).get("data") or {}).items():
        try:
            values[key] = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
    return values
