"""How often somebody may try a password: by account, and by address, counted in the tenant's database.

GCRA as one statement: a row holds when its allowance will be whole again. An attempt is counted before the password
is looked at, so that many at once cannot get round it; what cannot be counted is not let through.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_TAKE = text(
    "INSERT INTO login_attempts AS a (key, arrival) VALUES (:key, clock_timestamp() + make_interval(secs => :cost))"
    " ON CONFLICT (key) DO UPDATE SET"
    " arrival = greatest(a.arrival, clock_timestamp()) + make_interval(secs => :cost)"
    " WHERE a.arrival <= clock_timestamp() + make_interval(secs => :slack) RETURNING 1"
)
_WAIT = text(
    "SELECT extract(epoch FROM arrival - clock_timestamp())::float8 - :slack FROM login_attempts WHERE key = :key"
)
_FORGIVE = text("DELETE FROM login_attempts WHERE key = :key")


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` attempts at once, then one each `seconds`."""

    burst: int
    seconds: float


ACCOUNT = Rate(burst=10, seconds=30)
ADDRESS = Rate(burst=100, seconds=1)
REGISTRATION = Rate(burst=20, seconds=30)  # by address


def account(email_key: str) -> str:
    """Return the key of an account, there or not; what somebody typed is not stored."""
    return f"account:{hashlib.sha256(email_key.encode()).hexdigest()}"


def address(ip: str, purpose: str = "address") -> str:
    """Return the key of an address: of IPv6 the network that one customer gets."""
    try:
        parsed = ipaddress.ip_address(ip)
    except ValueError:
        return f"{purpose}:unknown"
    if parsed.version == 6:
        return f"{purpose}:{ipaddress.ip_network((int(parsed), 64), strict=False)}"
    return f"{purpose}:{parsed}"


async def take(connection: AsyncConnection, key: str, rate: Rate) -> float | None:
    """Count an attempt; return None, or how many seconds are left until there may be another."""
    slack = (rate.burst - 1) * rate.seconds
    if (await connection.execute(_TAKE, {"key": key, "cost": rate.seconds, "slack": slack})).first():
        return None
    wait = (await connection.execute(_WAIT, {"key": key, "slack": slack})).scalar()
    return max(1.0, float(wait or 0))


async def forgive(connection: AsyncConnection, key: str) -> None:
    """Give the whole allowance back."""
    await connection.execute(_FORGIVE, {"key": key})
