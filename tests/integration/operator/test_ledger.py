"""The ledger's database as the operator keeps it: append-only for the gateway, and divided into months."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from ledger_database import MIGRATIONS, ledger_of, ledger_url, make_ledger
from structlog.testing import capture_logs

from assistant_cluster import stores
from assistant_crds import naming
from assistant_operator.adapters.ledger import Ledger, LedgerSettingError
from assistant_operator.adapters.migrations import Migrations
from assistant_operator.errors import StoreUnreachableError

DEFAULT = "ledger_entries_default"
ROW = """INSERT INTO ledger_entries VALUES ($1, $2, 't_x', 'acme', 'support', 'support', 'chat', 'r', NULL, 'demo', 'm',
    NULL, 10, 0, 0, 5, 0, 'reported', false, 1, 2, 'catalogue', 'USD', 7, 20, 30, $1, 1, NULL, 'ok', '1-0')"""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[stores.Postgres]:
    """A server of these tests' own: one of them stops it."""
    with stores.postgres() as store:
        yield store


@contextlib.asynccontextmanager
async def as_gateway(store: stores.Postgres, *, make: bool = True) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(await make_ledger(store) if make else ledger_url(store))
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def as_owner(store: stores.Postgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(store.superuser_dsn, database=naming.LEDGER)
    await connection.execute(f'SET ROLE "{naming.owner_role(naming.LEDGER)}"')
    yield connection
    await connection.close()


async def test_made_once_and_then_nothing_is_written(own_postgres: stores.Postgres) -> None:
    """The first run makes the database and its months, the second finds everything as it should be."""
    await ledger_of(own_postgres).ensure()
    written: list[None] = []
    ledger = Ledger(own_postgres.dsn, ledger_url(own_postgres), Migrations(MIGRATIONS), lambda: written.append(None))
    assert await ledger.ensure() == []
    assert written == []


async def test_the_gateway_appends_and_reads_and_nothing_else(own_postgres: stores.Postgres) -> None:
    """No row can be changed or taken away by whoever writes them, and no total be set; partitions are out of reach."""
    async with as_gateway(own_postgres) as gateway:
        await gateway.execute(ROW, datetime.now(UTC), "append")
        assert await gateway.fetchval("SELECT count(*) FROM ledger_entries WHERE call = 'append'") == 1
        month = datetime.now(UTC).strftime("ledger_entries_%Y_%m")
        for statement in (
            "UPDATE ledger_entries SET cost = 0",
            "DELETE FROM ledger_entries",
            "TRUNCATE ledger_entries",
            "DROP TABLE ledger_entries",
            "UPDATE ledger_totals SET cost = 0",
            "INSERT INTO ledger_totals VALUES ('t_x', 'other', 1, 1, 1)",
            "DELETE FROM ledger_rejects",
            "UPDATE ledger_epochs SET epoch = 1",
            f"INSERT INTO {month} SELECT * FROM ledger_entries",
            f"DELETE FROM {month}",
            "DELETE FROM alembic_version",
            "CREATE TABLE mine (a int)",
            "CREATE TEMPORARY TABLE mine (a int)",
            "CREATE SCHEMA mine",
            "ALTER TABLE ledger_entries DISABLE TRIGGER ALL",
            f'SET ROLE "{naming.owner_role(naming.LEDGER)}"',
        ):
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.InvalidAuthorizationSpecificationError)):
                await gateway.execute(statement)
        assert await gateway.fetchval("SELECT count(*) FROM ledger_entries WHERE call = 'append'") == 1


async def test_more_rights_than_wanted_are_taken_back(own_postgres: stores.Postgres) -> None:
    """Whatever somebody granted by hand is gone after the next run."""
    await make_ledger(own_postgres)
    async with as_owner(own_postgres) as owner:
        await owner.execute(f'GRANT DELETE ON ledger_entries TO "{naming.login_role(naming.LEDGER)}"')
    async with as_gateway(own_postgres) as gateway:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await gateway.execute("DELETE FROM ledger_entries")


async def test_rows_lie_in_their_month_and_none_is_refused(own_postgres: stores.Postgres) -> None:
    """This month and the next ones have partitions; whatever a wrong clock says goes to the default one."""
    now = datetime.now(UTC)
    days = [now, (now.replace(day=1) + timedelta(days=32)), datetime(2019, 1, 1, tzinfo=UTC)]
    async with as_gateway(own_postgres) as gateway:
        for index, day in enumerate(days):
            await gateway.execute(ROW, day, f"month {index}")
        found = await gateway.fetch(
            "SELECT tableoid::regclass::text FROM ledger_entries WHERE call LIKE 'month %' ORDER BY call"
        )
    assert [row[0] for row in found] == [
        days[0].strftime("ledger_entries_%Y_%m"),
        days[1].strftime("ledger_entries_%Y_%m"),
        "ledger_entries_default",
    ]


async def test_a_month_that_was_late_takes_its_rows_from_the_default_partition(own_postgres: stores.Postgres) -> None:
    """Rows that came before their month's partition move into it, are there once, and are not counted again."""
    now = datetime.now(UTC)
    month = now.strftime("ledger_entries_%Y_%m")
    await make_ledger(own_postgres)
    async with as_owner(own_postgres) as owner:
        await owner.execute(f"DROP TABLE {month}")
    async with as_gateway(own_postgres, make=False) as gateway:
        await gateway.execute(ROW, now, "late")
        before = await gateway.fetchval("SELECT sum(entries) FROM ledger_totals")
        assert await ledger_of(own_postgres).ensure() == [month]
        where = "SELECT tableoid::regclass::text FROM ledger_entries WHERE call = 'late'"
        assert [row[0] for row in await gateway.fetch(where)] == [month]
        assert await gateway.fetchval("SELECT sum(entries) FROM ledger_totals") == before
        indexes = "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'i'"
        tables = "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'r'"
        assert await gateway.fetchval(indexes) == 3 * await gateway.fetchval(tables)


async def test_a_month_is_made_while_rows_come(own_postgres: stores.Postgres) -> None:
    """Gateways go on writing into a month that has no partition yet: it is made at the first try, no row is refused."""
    await make_ledger(own_postgres)
    month = datetime.now(UTC).strftime("ledger_entries_%Y_%m")
    ending = asyncio.Event()

    async def write(writer: int) -> int:
        count = 0
        async with as_gateway(own_postgres, make=False) as gateway:
            while not ending.is_set():
                await gateway.execute(ROW, datetime.now(UTC), f"busy {writer} {count}")
                count += 1
        return count

    async with as_owner(own_postgres) as owner:
        writers = [asyncio.create_task(write(writer)) for writer in range(4)]
        for _ in range(5):
            async with owner.transaction():
                await owner.execute(f"ALTER TABLE ledger_entries DETACH PARTITION {month}")
                await owner.execute(
                    f"WITH o AS (DELETE FROM {month} RETURNING *) INSERT INTO {DEFAULT} SELECT * FROM o"
                )
                await owner.execute(f"DROP TABLE {month}")
            assert await ledger_of(own_postgres).ensure() == [month]
        ending.set()
        written = sum(await asyncio.gather(*writers))
        found = await owner.fetchrow(
            "SELECT count(*), count(DISTINCT call), count(*) FILTER (WHERE tableoid = $1::text::regclass)"
            " FROM ledger_entries WHERE call LIKE 'busy %'",
            month,
        )
    assert tuple(found) == (written, written, written)
    assert written > 20


async def test_a_month_that_cannot_be_made_holds_up_no_other(own_postgres: stores.Postgres) -> None:
    """One month's partition fails: the others are made all the same, and that one when its obstacle is gone."""
    await make_ledger(own_postgres)
    now = datetime.now(UTC)
    months = [day.strftime("ledger_entries_%Y_%m") for day in (now, now.replace(day=1) + timedelta(days=32))]
    async with as_owner(own_postgres) as owner, as_gateway(own_postgres, make=False) as gateway:
        for month in months:
            await owner.execute(f"DROP TABLE {month}")
        await gateway.execute(ROW, now, "held up")
        await owner.execute(f"CREATE DOMAIN {months[0]} AS integer")  # a type of the table's name
        with pytest.raises(StoreUnreachableError, match="already exists"):
            await ledger_of(own_postgres).ensure()
        assert await owner.fetchval("SELECT to_regclass($1) IS NOT NULL", months[1])
        await owner.execute(f"DROP DOMAIN {months[0]}")
        assert await ledger_of(own_postgres).ensure() == months[:1]


async def test_after_a_roll_back_a_newer_schema_is_left_alone(own_postgres: stores.Postgres) -> None:
    """The database has a revision of a release that is newer than this one: all that is this one's to keep is kept."""
    await make_ledger(own_postgres)
    month = datetime.now(UTC).strftime("ledger_entries_%Y_%m")
    async with as_owner(own_postgres) as owner:
        known = await owner.fetchval("SELECT version_num FROM alembic_version")
        await owner.execute("UPDATE alembic_version SET version_num = '9999'")
        await owner.execute(f"ALTER TABLE ledger_entries ADD COLUMN newer text; DROP TABLE {month}")
        try:
            assert await ledger_of(own_postgres).ensure() == [month]
            assert await owner.fetchval("SELECT version_num FROM alembic_version") == "9999"
        finally:
            await owner.execute("UPDATE alembic_version SET version_num = $1", known)
            await owner.execute("ALTER TABLE ledger_entries DROP COLUMN newer")


async def test_ids_of_end_users_are_erased_and_sums_stay(own_postgres: stores.Postgres) -> None:
    """The platform team erases one user's ids, a tenant's, or all before a time; the gateway may not."""
    row = ROW.replace("NULL, 'demo'", "$3, 'demo'").replace("'t_x', 'acme'", "'t_u', $4")
    calls = [("one", "ada", "acme"), ("two", "bob", "acme"), ("three", "ada", "other"), ("four", "eve", "other")]
    sums = "SELECT sum(entries), sum(tokens), sum(cost) FROM ledger_totals WHERE tenant_key = 't_u'"
    users = "SELECT user_id FROM ledger_entries WHERE tenant_key = 't_u' ORDER BY started"
    erase = "SELECT erase_ledger_users($1, $2, $3)"
    await make_ledger(own_postgres)
    async with as_gateway(own_postgres, make=False) as gateway, as_owner(own_postgres) as owner:
        now = datetime.now(UTC)
        for number, (call, user, tenant) in enumerate(calls):
            await gateway.execute(row, now + timedelta(seconds=number), call, user, tenant)
        before = await owner.fetchrow(sums)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await gateway.fetchval(erase, "acme", "ada", None)
        with pytest.raises(asyncpg.RaiseError, match="say whose"):
            await owner.fetchval(erase, None, None, None)
        assert await owner.fetchval(erase, "acme", "ada", None) == 1
        assert [found[0] for found in await owner.fetch(users)] == [None, "bob", "ada", "eve"]
        assert await owner.fetchval(erase, "acme", None, None) == 1
        assert await owner.fetchval(erase, None, None, now + timedelta(seconds=2.5)) == 1
        assert [found[0] for found in await owner.fetch(users)] == [None, None, None, "eve"]
        assert await owner.fetchval(erase, None, "eve", None) == 1
        assert await owner.fetchrow(sums) == before
        assert await owner.fetchval("SELECT sum(cost) FROM ledger_entries WHERE tenant_key = 't_u'") == before[2]


async def test_totals_are_what_the_rows_add_up_to(own_postgres: stores.Postgres) -> None:
    """Each insert is counted once, by tenant and scope, and one that is undone is not."""
    row = ROW.replace("'t_x'", "'t_sum'")
    async with as_gateway(own_postgres) as gateway:
        with contextlib.suppress(ZeroDivisionError):
            async with gateway.transaction():
                await gateway.execute(row, datetime.now(UTC), "undone")
                raise ZeroDivisionError
        for call in ("one", "two"):
            await gateway.execute(row, datetime.now(UTC), call)
        found = await gateway.fetch("SELECT scope, entries, tokens, cost FROM ledger_totals WHERE tenant_key = 't_sum'")
    assert [tuple(total) for total in found] == [("support", 2, 30, 14)]


async def test_an_address_that_the_operator_cannot_provide_is_refused() -> None:
    """Another role or database, or no password, is told with what it should be; the password is not in the message."""
    for url in ("postgresql://me:secret@h/assistant_ledger", "postgresql://assistant_ledger_app:secret@h/other", ""):
        with pytest.raises(LedgerSettingError, match="assistant_ledger_app:<password>") as caught:
            Ledger("postgresql://o@h/postgres", url, Migrations(MIGRATIONS), lambda: None)
        assert "secret" not in str(caught.value)


async def test_postgres_away_is_told_once_and_mended_when_it_is_back(own_postgres: stores.Postgres) -> None:
    """The operator goes on trying, with one line when it begins and one when it is over."""
    ledger = ledger_of(own_postgres)
    await ledger.ensure()
    own_postgres.server.stop()
    with pytest.raises(StoreUnreachableError):
        await ledger.ensure()
    with capture_logs() as lines:
        watch = asyncio.create_task(ledger.watch(0.1))
        await asyncio.sleep(3)
        own_postgres.server.start()
        async with asyncio.timeout(20):
            while len(lines) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        watch.cancel()
    assert [line["log_level"] for line in lines] == ["error", "info"]
