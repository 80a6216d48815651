"""A limiter with the ledger behind it: counters that Redis lost are restored, and entries that it cannot take are kept.

The limits know no ledger: they are handed the two functions that they need of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from assistant_gateway.ledger.database import LedgerDatabase, LedgerUnavailableError
from assistant_gateway.ledger.rebuild import rebuild
from assistant_gateway.ledger.rows import Reject, Row, read
from assistant_gateway.limits.ahead import WaitingEntry, WriteAhead
from assistant_gateway.limits.leases import Rules
from assistant_gateway.limits.limit_scope import Limits
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import Quota
from assistant_gateway.limits.redis import Redis
from assistant_observability import logs, metrics

_log = logs.logger(__name__)


def limiter_with_ledger(
    redis: Redis | None, database: LedgerDatabase | None = None, *, rules: Rules | None = None
) -> Limiter:
    """Return a limiter that restores counters from the ledger: Postgres and Redis's stream, or the stream alone."""
    if redis is None:
        return Limiter(None, rules=rules)

    async def restore(quota: Quota, limits: Limits) -> None:
        await rebuild(redis, quota, limits, database)

    return Limiter(redis, rebuild=restore, write_ahead=_writer(database), rules=rules)


def _writer(database: LedgerDatabase | None) -> WriteAhead | None:
    if database is None:
        return None

    async def write(tenant: str, waiting: Sequence[WaitingEntry]) -> bool:
        found = [
            read(tenant, f"call {item.call}", {b"at": str(item.at).encode(), b"entry": item.entry}) for item in waiting
        ]
        batch = [item for item in found if isinstance(item, Row)]
        rejects = [item for item in found if isinstance(item, Reject)]
        try:
            async with database.books(tenant, wait=True) as books:
                if books is None:
                    return False
                recorded = await books.record(batch, rejects)
        except LedgerUnavailableError:  # the drain logs it
            return False
        for result, count in msgspec.structs.asdict(recorded).items():
            metrics.LEDGER_ENTRIES.labels(result).inc(count)
        _log.info("calls written to the ledger while Redis is away", tenant=tenant, calls=recorded.inserted)
        return True

    return write
