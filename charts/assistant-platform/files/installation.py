# ruff: noqa: INP001  # a script in a ConfigMap, of no package
"""`helm test`: do the operator, the gateway and the stores answer, with the credentials that the parts use?

Runs in the operator's image. Prints one line per check and ends with 1 if one fails; credentials are never printed.
"""

import asyncio
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

SECRETS = Path(os.environ.get("SECRETS_DIR", "/etc/assistant/secrets"))
SECONDS = 10


def secret(name: str) -> str:
    """Return one setting of a store."""
    return (SECRETS / name).read_text().strip()


async def answers(url: str, expected: int, **headers: str) -> str:
    """Check the status of a GET."""
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - addresses come from the chart

    def get() -> int:
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    found = await asyncio.to_thread(get)
    if found != expected:
        raise RuntimeError(f"HTTP {found} instead of {expected}")
    return f"HTTP {found}"


async def postgres() -> str:
    """Log in as the operator's role, which may make databases and roles and is no superuser."""
    connection = await asyncpg.connect(secret("postgres_dsn"), timeout=SECONDS)
    try:
        row = await connection.fetchrow(
            "SELECT rolcreatedb AND rolcreaterole AS enough, rolsuper AS too_much, "
            "current_setting('server_version') AS v FROM pg_roles WHERE rolname = current_user",
            timeout=SECONDS,
        )
    finally:
        await connection.close(timeout=SECONDS)
    if row is None or not row["enough"]:
        raise RuntimeError("the role needs CREATEDB and CREATEROLE")
    return f"PostgreSQL {row['v']}" + (", but the role is a superuser: give it less" if row["too_much"] else "")


async def ledger() -> str:
    """Log in as the gateway does, and see whether there is a place for this month's calls."""
    connection = await asyncpg.connect(secret("ledger_url"), timeout=SECONDS)
    try:
        row = await connection.fetchrow(
            "SELECT has_table_privilege('ledger_entries', 'INSERT') AS enough, "
            "has_table_privilege('ledger_entries', 'UPDATE, DELETE, TRUNCATE') AS too_much, "
            "to_regclass(to_char(now() AT TIME ZONE 'UTC', '\"ledger_entries_\"YYYY_MM')) IS NOT NULL AS month",
            timeout=SECONDS,
        )
    finally:
        await connection.close(timeout=SECONDS)
    if row is None or not row["enough"] or not row["month"]:
        raise RuntimeError("the operator has not prepared it: see its log")
    if row["too_much"]:
        raise RuntimeError("the gateway's role can change entries")
    return "append-only"


async def redis(name: str) -> str:
    """Log in as one of the platform's users."""
    client: Redis = Redis.from_url(
        secret(name), socket_timeout=SECONDS, socket_connect_timeout=SECONDS, driver_info=None, protocol=2
    )
    async with client:
        await client.ping()
    return "PONG"


async def report(name: str, check: Awaitable[str]) -> bool:
    """Print what a check found, and return whether it was good."""
    try:
        found = await asyncio.wait_for(check, 2 * SECONDS)
    except Exception as error:  # noqa: BLE001 - any error is the answer to the question
        # Messages of clients may hold addresses, never passwords; drop everything after the first line all the same.
        print(f"FAIL  {name}: {type(error).__name__}: {str(error).partition(chr(10))[0]}", flush=True)  # noqa: T201
        return False
    print(f"ok    {name}: {found}", flush=True)  # noqa: T201
    return True


async def run() -> int:
    """Make all checks, and return the exit code."""
    operator, gateway, metrics = (os.environ[name] for name in ("OPERATOR_URL", "GATEWAY_URL", "GATEWAY_METRICS_URL"))
    results = [
        await report("operator is ready", answers(f"{operator}/readyz", 200)),
        await report("gateway is ready", answers(f"{metrics}/readyz", 200)),
        await report("gateway refuses strangers", answers(f"{gateway}/v1/models", 401)),
        await report("postgres as operator", postgres()),
        await report("ledger as gateway", ledger()),
        await report("redis as operator", redis("redis_operator_url")),
        await report("redis as gateway", redis("redis_gateway_url")),
        await report(
            "weaviate as operator",
            answers(f"{secret('weaviate_url')}/v1/schema", 200, Authorization=f"Bearer {secret('weaviate_api_key')}"),
        ),
        await report("weaviate refuses strangers", answers(f"{secret('weaviate_url')}/v1/schema", 401)),
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(run()))
