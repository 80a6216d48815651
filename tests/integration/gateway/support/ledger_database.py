"""The ledger's database as the operator makes it, for tests of the gateway and of the operator."""

from __future__ import annotations

import hashlib
from pathlib import Path

from assistant_cluster import stores
from assistant_crds import naming
from assistant_operator.adapters.ledger import Ledger
from assistant_operator.adapters.migrations import Migrations

MIGRATIONS = Path(__file__).parents[4] / "gateway" / "assistant_gateway" / "ledger" / "migrations"


def ledger_url(store: stores.Postgres) -> str:
    """Return how the gateway logs in to the ledger on this server; the password is the same each time."""
    password = hashlib.sha256(f"ledger {store.operator_password}".encode()).hexdigest()[:32]
    return f"postgresql://{naming.login_role(naming.LEDGER)}:{password}@{store.address}/{naming.LEDGER}"


def ledger_of(store: stores.Postgres) -> Ledger:
    """Return the operator's hand on the ledger of this server."""
    return Ledger(store.dsn, ledger_url(store), Migrations(MIGRATIONS), lambda: None)


async def make_ledger(store: stores.Postgres) -> str:
    """Make the ledger's database, if it is not there; return the gateway's URL."""
    await ledger_of(store).ensure()
    return ledger_url(store)
