"""What a tenant used, added up from the ledger in Postgres, and what the ledger has not been given yet.

Reports are given connections of their own (`database`): however many are asked for, moving entries to the ledger does
not wait for them. One report at a time per tenant, so that none takes them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from assistant_crds import naming
from assistant_gateway import errors
from assistant_gateway.errors import GatewayError
from assistant_gateway.ledger.database import LedgerDatabase, LedgerUnavailableError
from assistant_gateway.ledger.entry import LedgerEntry, decode_entry
from assistant_gateway.ledger.rows import moment
from assistant_gateway.limits.answers import money
from assistant_gateway.limits.redis import Redis, UnavailableError
from assistant_gateway.usage.query import Key, Query, start_of
from assistant_observability import logs

REPORT_SECONDS = 10.0  # of one report, with waiting for the tenant's former one
CONNECTIONS = 2
NAME = "assistant-gateway-usage"
PENDING_PAGE, PENDING_PAGES = 250, 8  # entries looked at in Redis; more wait only while Postgres is away
RETRY_AFTER = "5"

_KEYS = {
    "assistant": "scope",  # empty for calls that count on the tenant's limits alone
    "user": "coalesce(user_id, '')",
    "model": "model",
    "provider": "provider",
    # Rows of the release before have one word for both (decision 75).
    "operation": "coalesce(operation, CASE WHEN road IN ('chat', 'stream') THEN 'chat' ELSE 'embeddings' END)",
    "purpose": "coalesce(purpose, CASE road WHEN 'stream' THEN 'chat' WHEN 'embedding' THEN 'other' ELSE road END)",
}
_SUMS = """
count(*), sum(input), sum(cached), sum(output), sum(reasoning), sum(cost),
count(*) FILTER (WHERE source = 'estimated'), coalesce(sum(cost) FILTER (WHERE source = 'estimated'), 0),
count(unpriced)
"""

NOTHING = (0,) * 9

_log = logs.logger(__name__)


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """What some calls used together. Money as decimal numbers; `estimated_*` is the part that no provider reported.

    `cost` is None where the price of none of the calls is known. `unpriced_requests` are those of which all or a part
    has no known price: the cost is without it.
    """

    requests: int
    input_tokens: int
    cached_tokens: int  # of the input
    output_tokens: int
    reasoning_tokens: int  # of the output
    cost: str | None
    currency: str
    estimated_requests: int
    estimated_cost: str
    unpriced_requests: int

    @classmethod
    def of(cls, currency: str, numbers: Sequence[Any]) -> Sums:
        """Return the sums in the order of `_SUMS`."""
        known = [int(number or 0) for number in numbers]
        requests, given, cached, output, reasoning, _, estimated, estimated_cost, unpriced = known
        cost = numbers[5] if requests else 0
        return cls(
            requests=requests,
            input_tokens=given,
            cached_tokens=cached,
            output_tokens=output,
            reasoning_tokens=reasoning,
            cost=None if cost is None else money(int(cost)),
            currency=currency,
            estimated_requests=estimated,
            estimated_cost=money(estimated_cost),
            unpriced_requests=unpriced,
        )


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that are settled and not in the ledger yet; in none of the other figures. Not complete: there are more."""

    totals: list[Sums]
    complete: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a question for usage. `data` has one row per group and currency, `totals` one per currency.

    `pending` is None where nobody can say what waits: calls of the last moments may then be missing.
    """

    object: str = "usage"
    from_: str = msgspec.field(name="from")
    to: str
    time_zone: str
    group_by: tuple[str, ...]
    as_of: str
    data: list[dict[str, str | int | None]]
    totals: list[Sums]
    pending: Pending | None
    next_cursor: str | None


class UsageReports:
    """Adds up what tenants used."""

    def __init__(
        self, database: LedgerDatabase, redis: Redis | None, *, report_seconds: float = REPORT_SECONDS
    ) -> None:
        self._database = database
        self._redis = redis
        self._report_seconds = report_seconds
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @classmethod
    def of(cls, url: str, redis: Redis | None) -> UsageReports:
        """Return reports from the ledger at a URL; nothing is connected yet."""
        return cls(LedgerDatabase(url, name=NAME, connections=CONNECTIONS), redis)

    async def report(self, tenant: str, currency: str, query: Query) -> Report:
        """Return what the tenant of this key used. `currency` is that of a total where nothing was used.

        Raises:
            GatewayError: 503, the ledger cannot be asked, or not in time.
        """
        turn = self._turns.setdefault(tenant, asyncio.Lock())
        try:
            async with asyncio.timeout(self._report_seconds), turn:
                return await self._report(tenant, currency, query)
        except (LedgerUnavailableError, TimeoutError) as error:
            _log.warning("usage not reported", reason=str(error) or "no answer in time")
            raise unavailable() from None

    async def _report(self, tenant: str, currency: str, query: Query) -> Report:
        as_of = datetime.now(UTC)
        # Entries go from Redis to Postgres: looked for in this order, none is missed.
        waiting, complete = await self._waiting(tenant, query)
        async with self._reading() as connection:
            totals = await connection.fetch(*_totals(tenant, query))
            rows = await connection.fetch(*_rows(tenant, query))
            known = await connection.fetch(*_known(tenant, waiting)) if waiting else []
        pending = None
        if complete is not None:
            there = {row[0] for row in known}
            pending = Pending(totals=_added([e for e in waiting if e.call not in there], currency), complete=complete)
        size, page = len(query.groups), rows[: query.limit]
        more = len(rows) > query.limit
        return Report(
            from_=_rfc3339(query.since),
            to=_rfc3339(query.until),
            time_zone=query.zone.key,
            group_by=query.groups,
            as_of=_rfc3339(as_of),
            data=[_row(query, tuple(row), size) for row in page],
            totals=[Sums.of(row[0], tuple(row)[1:]) for row in totals] or [Sums.of(currency, NOTHING)],
            pending=pending,
            next_cursor=query.cursor(_key(page[-1], size)) if more else None,
        )

    async def _waiting(self, tenant: str, query: Query) -> tuple[list[LedgerEntry], bool | None]:
        """Return the entries that fit the question and wait in Redis, and whether these are all; None: unknown."""
        if self._redis is None:
            return [], True  # without Redis there is nothing that could wait
        found: list[LedgerEntry] = []
        start, complete = "-", True
        try:
            for _ in range(PENDING_PAGES):
                page = await self._redis.command(
                    "XRANGE", naming.ledger_stream(tenant), start, "+", "COUNT", PENDING_PAGE
                )
                for _, fields in page:
                    entry = _fitting(fields, query)
                    complete = complete and not isinstance(entry, ValueError)
                    if isinstance(entry, LedgerEntry):
                        found.append(entry)
                if len(page) < PENDING_PAGE:
                    return found, complete
                start = f"({page[-1][0].decode()}"
        except UnavailableError:
            return [], None
        return found, False

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[Any]:
        """Lend a connection in a transaction that sees one state of the ledger throughout, and can only read."""
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            # Also ends what this process can no longer cancel.
            await connection.execute(f"SET LOCAL statement_timeout = {int(self._report_seconds * 1000)}")
            yield connection

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()


def unavailable() -> GatewayError:
    """Return the 503: nobody can add up now; calls go on all the same."""
    return GatewayError(
        503,
        "usage_unavailable",
        "Usage cannot be reported right now; requests are still counted. Try again in a moment.",
        kind=errors.SERVER,
        headers={"retry-after": RETRY_AFTER},
    )


# --- questions to Postgres; values only ever as parameters -----------------------------------------------------------


def _where(tenant: str, query: Query) -> tuple[str, list[Any]]:
    values: list[Any] = [tenant, query.since, query.until]
    where = "tenant_key = $1 AND at >= $2 AND at < $3"
    for column, wanted in (("scope", query.assistant), ("user_id", query.user)):
        if wanted is not None:
            values.append(wanted)
            where += f" AND {column} = ${len(values)}"
    return where, values


def _totals(tenant: str, query: Query) -> list[Any]:
    where, values = _where(tenant, query)
    text = f"SELECT currency, {_SUMS} FROM ledger_entries WHERE {where} GROUP BY currency ORDER BY currency"  # noqa: S608
    return [text, *values]


def _rows(tenant: str, query: Query) -> list[Any]:
    where, values = _where(tenant, query)
    keys = []
    for group in query.groups:
        if group == "day":  # by boundaries of ours: Postgres' own time zones may be older
            values.append([start_of(day, query.zone) for day in query.days()])
            keys.append(f"width_bucket(at, ${len(values)}::timestamptz[])")
        else:
            keys.append(f'{_KEYS[group]} COLLATE "C"')
    names = [f"k{number}" for number in range(len(keys) + 1)]
    listed = ", ".join(f"{key} AS {name}" for key, name in zip([*keys, 'currency COLLATE "C"'], names, strict=True))
    after = ""
    if query.after is not None:
        marks = [f"${len(values) + number + 1}" for number in range(len(names))]
        values += query.after
        after = f"WHERE ({', '.join(names)}) > ({', '.join(marks)})"
    order = ", ".join(names)
    grouped = f"SELECT {listed}, {_SUMS} FROM ledger_entries WHERE {where} GROUP BY {order}"  # noqa: S608
    values.append(query.limit + 1)
    return [f"SELECT * FROM ({grouped}) AS g {after} ORDER BY {order} LIMIT ${len(values)}", *values]  # noqa: S608


def _known(tenant: str, waiting: Sequence[LedgerEntry]) -> list[Any]:
    """Ask which of these calls are in Postgres, too: they leave Redis a moment later."""
    since = moment(min(entry.started for entry in waiting))
    text = "SELECT call FROM ledger_entries WHERE tenant_key = $1 AND at >= $2 AND call = ANY($3)"
    return [text, tenant, since - timedelta(minutes=5), [entry.call for entry in waiting]]


# --- from numbers to the answer --------------------------------------------------------------------------------------


def _key(row: Iterable[Any], size: int) -> Key:
    return tuple(row)[: size + 1]


def _row(query: Query, row: tuple[Any, ...], size: int) -> dict[str, str | int | None]:
    days = query.days() if "day" in query.groups else []
    shown: dict[str, str | int | None] = {}
    for group, value in zip(query.groups, row[:size], strict=True):
        shown[group] = days[value - 1].isoformat() if group == "day" else value or None
    return {**shown, **msgspec.structs.asdict(Sums.of(row[size], row[size + 1 :]))}


def _added(entries: Sequence[LedgerEntry], currency: str) -> list[Sums]:
    totals: dict[str, list[int | None]] = {}
    for entry in entries:
        estimated = entry.source == "estimated"
        cost = entry.known_cost
        numbers = (
            *(1, entry.input, entry.cached, entry.output, entry.reasoning, cost),
            *(int(estimated), cost if estimated else 0, int(entry.unpriced is not None)),
        )
        total = totals.setdefault(entry.currency, [None] * len(numbers))
        total[:] = [old if new is None else (old or 0) + new for old, new in zip(total, numbers, strict=True)]
    return [Sums.of(name, totals[name]) for name in sorted(totals)] or [Sums.of(currency, NOTHING)]


def _fitting(fields: dict[bytes, bytes], query: Query) -> LedgerEntry | ValueError | None:
    """Return the entry if the question is about it; the error if nobody can read it."""
    try:
        entry, at = decode_entry(fields[b"entry"]), moment(int(fields[b"at"]))
    except (KeyError, ValueError, OverflowError) as error:  # msgspec's errors are ValueErrors
        return ValueError(str(error))
    fits = query.since <= at < query.until
    fits = fits and query.assistant in {None, entry.scope} and query.user in {None, entry.user}
    return entry if fits else None


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
