"""A database with the ledger's schema, and entries in it, for reports of usage."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg

import assistant_gateway
from assistant_cluster import stores
from assistant_operator.adapters.migrations import Migrations

MIGRATIONS = Path(assistant_gateway.__file__).parent / "ledger" / "migrations"


@dataclass
class UsageDatabase:
    """`url` logs in as who may read and add entries, and nothing else; `owner_url` as their owner."""

    url: str
    owner_url: str

    async def add(self, tenant_key: str, at: str, **changes: Any) -> None:
        """Write one entry: 10 tokens in, 5 out, 70 micro-units, unless `changes` say otherwise."""
        moment = datetime.fromisoformat(at)
        call = secrets.token_hex(16)
        values: dict[str, Any] = {
            "at": moment,
            "call": call,
            "tenant_key": tenant_key,
            "tenant": "acme",
            "name": "support",
            "scope": "support",
            "operation": "chat",
            "purpose": "chat",
            "request": "r",
            "user_id": "ada",
            "provider": "demo",
            "model": "small",
            "answered": "small-1",
            "input": 10,
            "cached": 4,
            "cache_write": 0,
            "output": 5,
            "reasoning": 2,
            "source": "reported",
            "disputed": False,
            "price_input": 1,
            "price_output": 1,
            "price_source": "catalogue",
            "currency": "USD",
            "cost": 70,
            "held_tokens": 20,
            "held_cost": 100,
            "started": moment,
            "duration_us": 1000,
            "first_byte_us": 10,
            "outcome": "ok",
            "stream_id": "1-1",
            **changes,
        }
        await self._run(
            f"INSERT INTO ledger_entries ({', '.join(values)}) VALUES"
            f" ({', '.join(f'${number}' for number in range(1, len(values) + 1))})",
            list(values.values()),
        )

    async def _run(self, statement: str, values: Sequence[Any] = ()) -> None:
        connection = await asyncpg.connect(self.owner_url)
        try:
            await connection.execute(statement, *values)
        finally:
            await connection.close()


async def make_usage_database(store: stores.Postgres) -> UsageDatabase:
    """Make a database of its own, by the ledger's migrations."""
    name, password = f"usage_{secrets.token_hex(4)}", secrets.token_hex(8)
    connection = await asyncpg.connect(store.dsn)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.execute(f"CREATE ROLE \"{name}_login\" LOGIN PASSWORD '{password}'")
    finally:
        await connection.close()
    owner_url = store.dsn.rsplit("/", 1)[0] + f"/{name}"
    url = f"postgresql+asyncpg://{owner_url.partition('://')[2]}"
    await Migrations(MIGRATIONS).upgrade(url, "assistant_operator", 5)
    database = UsageDatabase(f"postgresql://{name}_login:{password}@{store.address}/{name}", owner_url)
    await database._run(f'GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO "{name}_login"')
    return database
