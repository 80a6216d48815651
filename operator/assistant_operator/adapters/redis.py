"""One Redis ACL user per tenant: named commands only, and no keys.

Categories are never granted: they would let FLUSHALL, KEYS and CONFIG through.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from assistant_crds import naming
from assistant_observability import metrics
from assistant_operator.errors import StoreUnreachableError

STORE = "redis"
TIMEOUT_SECONDS = 3.0
SCAN_BATCH = 500

# What a tenant's pods do: ask whether Redis is there. No keys and no channels: whatever a tenant could write would take
# memory from the limits and the ledger's streams of all tenants, and Redis bounds no user's memory. AUTH and HELLO need
# no right; the client is made without CLIENT SETINFO.
COMMANDS = ("ping",)


class Redis:
    """Users and keys of tenants in one Redis."""

    def __init__(self, url: str, guard: Callable[[], None]) -> None:
        self._client: Any = Client.from_url(
            url,
            driver_info=None,
            decode_responses=True,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # once, for a connection that the server closed while it was idle
        )
        self._guard = guard

    async def close(self) -> None:
        """Close the connections; one that does not close in time ends with the process."""
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()

    async def ping(self) -> str:
        """Return the server's run id: another one means that the server was started anew."""
        async with _errors("ping"):
            info = await self._client.info("server")
        return str(info.get("run_id", ""))

    async def ensure_user(self, tenant: str, password: str) -> bool:
        """Make the tenant's user be exactly as wanted; return whether anything had to be written."""
        user = naming.redis_user(tenant)
        async with _errors("get_user"):
            found = await self._client.acl_getuser(user)
        if found is not None and _is_as_wanted(found, password):
            return False
        self._guard()
        rules = ["reset", "on", f"#{_hash(password)}", "-@all", *(f"+{command}" for command in COMMANDS)]
        async with _errors("set_user"):
            await self._client.execute_command("ACL SETUSER", user, *rules)
            await self._save()
        return True

    async def undrained(self, tenant: str) -> int:
        """Return how many entries of the tenant's ledger are not in Postgres yet."""
        async with _errors("undrained"):
            return int(await self._client.xlen(naming.ledger_stream(tenant)))

    async def remove_tenant(self, tenant: str) -> int:
        """Remove the user, then every key of the tenant and its counters; return how many keys there were."""
        async with _errors("remove_tenant"):
            if await self._client.acl_getuser(naming.redis_user(tenant)) is not None:
                self._guard()
                await self._client.acl_deluser(naming.redis_user(tenant))
                await self._save()
            removed = 0
            for prefix in (naming.redis_prefix(tenant), naming.quota_prefix(tenant)):
                async for batch in self._scan(f"{prefix}*"):
                    self._guard()
                    removed += await self._client.unlink(*batch)
        return removed

    async def leftovers(self, tenant: str) -> list[str]:
        """Return the tenant's keys and user that still exist."""
        found: list[str] = []
        async with _errors("leftovers"):
            if await self._client.acl_getuser(naming.redis_user(tenant)) is not None:
                found.append(f"user {naming.redis_user(tenant)}")
            for prefix in (naming.redis_prefix(tenant), naming.quota_prefix(tenant)):
                async for batch in self._scan(f"{prefix}*"):
                    found += batch
        return found

    async def _scan(self, pattern: str) -> AsyncIterator[list[str]]:
        cursor = 0
        while True:
            cursor, keys = await self._client.scan(cursor=cursor, match=pattern, count=SCAN_BATCH)
            if keys:
                yield keys
            if cursor == 0:
                return

    async def _save(self) -> None:
        try:
            await self._client.execute_command("ACL SAVE")
        except ResponseError as error:
            # A Redis without an ACL file forgets users when it restarts; the changed run id then brings them back.
            if "ACL file" not in str(error):
                raise


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _is_as_wanted(user: dict[str, Any], password: str) -> bool:
    return (
        user["enabled"]
        and "nopass" not in user["flags"]
        and user["passwords"] == [_hash(password)]
        and not user["keys"]
        and not user["channels"]
        and not user.get("selectors")
        and user["categories"] == ["-@all"]
        and set(user["commands"]) == {f"+{command}" for command in COMMANDS}
    )


@asynccontextmanager
async def _errors(operation: str) -> AsyncIterator[None]:
    try:
        yield
    except (TimeoutError, RedisError, OSError) as error:
        metrics.STORE_OPERATIONS.labels(STORE, operation, "error").inc()
        raise StoreUnreachableError(STORE, f"{operation} failed ({type(error).__name__}).") from error
    metrics.STORE_OPERATIONS.labels(STORE, operation, "ok").inc()
