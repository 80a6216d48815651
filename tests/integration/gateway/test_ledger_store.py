"""The ledger on its way from Redis to Postgres, counters made from it, and the two compared: all with real stores."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import ledger_dier
import pytest
from ledger_database import make_ledger
from ledger_tenant import COST, TOKENS, Tenant, entry, raw, tenant_of
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from assistant_crds import naming
from assistant_gateway.ledger.database import LedgerDatabase, LedgerUnavailableError
from assistant_gateway.ledger.drain import move
from assistant_gateway.ledger.entry import encode_entry
from assistant_gateway.ledger.rebuild import rebuild
from assistant_gateway.limits.limit_scope import Amount
from assistant_gateway.limits.quota import Finished, RebuildNeededError
from assistant_gateway.limits.redis import UnavailableError

NOBODY = "postgresql://assistant_ledger_app:x@127.0.0.1:1/assistant_ledger"


@pytest.fixture
async def tenant(redis_store, postgres) -> AsyncIterator[Tenant]:
    """A tenant whose counters are there."""
    async with tenant_of(redis_store.gateway_url, await make_ledger(postgres)) as made:
        assert await made.quota.restore(made.limits, 1, "0-0", [])
        yield made


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# --- the way to Postgres -------------------------------------------------------------------------------------------


async def test_a_call_is_a_row_with_everything_the_entry_said(tenant: Tenant) -> None:
    """Every field arrives, times with their microseconds, and the entry leaves Redis."""
    said = entry(
        "full", user="ada", answered="m-2", cached=3, cache_write=2, reasoning=1, disputed=True, price_input=10,
        price_output=20, price_source="catalogue", held_tokens=50, held_cost=60, first_byte=400, streamed=True,
    )  # fmt: skip
    await tenant.quota.settle(tenant.limits, "full", Amount(12, 3), encode_entry(said))
    async with raw(tenant.redis_url) as client:
        ((name, fields),) = await client.xrange(naming.ledger_stream(tenant.key))
    await tenant.move()
    (row,) = await tenant.fetch(
        "SELECT call, tenant, name, scope, operation, purpose, streamed, request, user_id, provider, model, answered,"
        " input, cached, cache_write, output, reasoning, source, disputed, price_input, price_output, price_source,"
        " currency, cost, held_tokens, held_cost, duration_us, first_byte_us, outcome, stream_id,"
        " (extract(epoch FROM at) * 1000000)::bigint,"
        " (extract(epoch FROM started) * 1000000)::bigint FROM ledger_entries WHERE tenant_key = $1"
    )
    assert row == (
        *("full", "acme", "support", "support", "chat", "chat", True, "request full", "ada"),
        *("demo", "m", "m-2", 7, 3, 2, 5, 1),
        *("reported", True, 10, 20, "catalogue", "USD", 3, 50, 60, 1000, 400, "ok", name.decode()),
        *(int(fields[b"at"]), said.started),
    )
    assert await tenant.waiting() == 0


async def test_what_is_sent_again_is_there_once(tenant: Tenant) -> None:
    """An entry that stayed in Redis after its commit, or was settled again after a loss, makes no second row."""
    await tenant.settle("a", "b")
    async with raw(tenant.redis_url) as client:
        kept = await client.xrange(naming.ledger_stream(tenant.key))
        await tenant.move()
        for name, fields in kept:  # as if the removal had not happened
            milliseconds, number = map(int, name.split(b"-"))
            await client.xadd(naming.ledger_stream(tenant.key), fields, f"{milliseconds + 10**6}-{number}")
        await tenant.move()
        again = {b"at": str(time.time_ns() // 1000).encode(), b"entry": kept[0][1][b"entry"]}
        for _ in range(2):  # another time of settling, twice in one batch
            await client.xadd(naming.ledger_stream(tenant.key), again)
    await tenant.move()
    assert await tenant.rows() == ["a", "b"]
    assert await tenant.fetch("SELECT entries, tokens, cost FROM ledger_totals WHERE tenant_key = $1") == [(2, 24, 6)]
    assert await tenant.waiting() == 0


async def test_a_process_killed_between_commit_and_removal_loses_and_doubles_nothing(
    tenant: Tenant, redis_store, postgres
) -> None:
    """SIGKILL at the worst moment: the entries are in both places, and the next one to look takes them out of Redis."""
    await tenant.settle(*(f"c{number:02}" for number in range(20)))
    command = [sys.executable, ledger_dier.__file__, redis_store.gateway_url, tenant.url, tenant.key]
    died = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (len(await tenant.rows()), await tenant.waiting()) == (20, 20)
    await tenant.move()
    assert (len(await tenant.rows()), await tenant.waiting()) == (20, 0)
    assert await tenant.drifts() == []


async def test_two_that_move_at_once_do_not_get_in_each_others_way(tenant: Tenant, redis_store) -> None:
    """However many drains run, while calls are settled all the time, each call is there once and nothing stays."""
    async with tenant_of(redis_store.gateway_url, tenant.url, tenant.key) as other:
        drains = [asyncio.create_task(one.drain.run()) for one in (tenant, other, other)]
        names = [f"c{number:04}" for number in range(1500)]
        for start in range(0, len(names), 50):
            await asyncio.gather(*(tenant.settle(name) for name in names[start : start + 50]))
        async with asyncio.timeout(20):
            while await tenant.waiting():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for task in drains:
            task.cancel()
    assert await tenant.rows() == names
    assert await tenant.drifts() == []


async def test_a_lock_in_other_hands_is_passed_over(tenant: Tenant) -> None:
    """Who finds a tenant taken does not wait for it, and takes it once the other one is gone, however it went."""
    await tenant.settle("a")
    async with tenant.database.books(tenant.key, wait=True):
        assert (await move(tenant.redis, tenant.database, tenant.key)).entries is None
    assert (await move(tenant.redis, tenant.database, tenant.key)).entries == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"at": "1", "entry": "{"}, "truncated"),
        ({"at": "1", "entry": '{"call": "x"}'}, "missing required field"),
        ({"at": "soon", "entry": encode_entry(entry("bad"))}, "invalid literal"),
        ({"entry": encode_entry(entry("bad"))}, "no field"),
        ({"at": "1", "entry": encode_entry(entry("bad", request="a\0b"))}, "NUL"),
        ({"at": "1", "entry": encode_entry(entry("bad", cost=-1))}, "is not between"),
        ({"at": str(10**18), "entry": encode_entry(entry("bad"))}, "out of range"),
        ({"at": "1", "entry": b"\xff\xfe"}, ""),
    ],
)
async def test_a_poisonous_entry_is_set_aside_whole(tenant: Tenant, fields: dict[str, object], reason: str) -> None:
    """What nobody can read is kept with its reason, said loudly, and blocks neither its neighbours nor a rebuild."""
    before = metric("assistant_ledger_entries_total", result="rejected")
    await tenant.settle("a")
    async with raw(tenant.redis_url) as client:
        await client.xadd(naming.ledger_stream(tenant.key), fields)
    await tenant.settle("b")
    with capture_logs() as lines:
        await tenant.move()
    assert await tenant.rows() == ["a", "b"]
    assert await tenant.waiting() == 0
    ((said, kept),) = await tenant.fetch("SELECT reason, fields FROM ledger_rejects WHERE tenant_key = $1")
    assert reason in said
    assert set(json.loads(kept)) == set(fields)
    assert metric("assistant_ledger_entries_total", result="rejected") == before + 1
    assert [line["log_level"] for line in lines] == ["error"]
    await tenant.lose()
    await tenant.reserve()
    assert await tenant.used() == (2, 24, 6)


async def test_what_postgres_refuses_is_set_aside_too(tenant: Tenant, postgres) -> None:
    """A rule of the database that this version does not know yet costs one entry, not the batch."""
    assert postgres
    await tenant.settle("a", "b")
    async with raw(tenant.redis_url) as client:
        odd = entry("odd", input=2**62, output=2**62)  # each fits; the sum that is counted does not
        await client.xadd(
            naming.ledger_stream(tenant.key), {"at": str(time.time_ns() // 1000), "entry": encode_entry(odd)}
        )
    await tenant.settle("c")
    await tenant.move()
    assert await tenant.rows() == ["a", "b", "c"]
    ((said,),) = await tenant.fetch("SELECT reason FROM ledger_rejects WHERE tenant_key = $1")
    assert "out of range" in said


async def test_postgres_away_costs_nothing_but_time(tenant: Tenant) -> None:
    """Entries stay, calls go on, one line says so, metrics show how many wait and how long; then all is moved."""
    await tenant.settle("a")
    away = LedgerDatabase(NOBODY)
    tenant.drain._database = away
    before = metric("assistant_ledger_errors_total", operation="drain")
    with capture_logs() as lines:
        task = asyncio.create_task(tenant.drain.run())
        async with asyncio.timeout(20):
            while metric("assistant_ledger_errors_total", operation="drain") < before + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await tenant.reserve()
        await tenant.settle("b")
        assert metric("assistant_ledger_entries_waiting") >= 1
        assert metric("assistant_ledger_oldest_entry_seconds") > 0
        assert await tenant.waiting() == 2
        tenant.drain._database = tenant.database
        async with asyncio.timeout(20):
            while await tenant.waiting():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        task.cancel()
    assert [line["log_level"] for line in lines] == ["error", "info"]
    assert await tenant.rows() == ["a", "b"]


async def test_a_process_that_ends_moves_what_is_left(tenant: Tenant) -> None:
    """The last turn of a drain takes everything along; one that cannot reach Postgres does not hold up the end."""
    await tenant.settle(*(f"c{number}" for number in range(1200)))
    await tenant.drain.close(10)
    assert (len(await tenant.rows()), await tenant.waiting()) == (1200, 0)
    tenant.drain._database = LedgerDatabase(NOBODY)
    await tenant.settle("later")
    started = time.monotonic()
    await tenant.drain.close(30)
    assert time.monotonic() - started < 20
    assert await tenant.waiting() == 1


def test_no_secret_is_shown() -> None:
    """The address holds a password."""
    assert "word" not in repr(LedgerDatabase("postgresql://a:word@h/d"))


async def test_a_wrong_address_is_told_without_its_password() -> None:
    """Whatever is wrong with it."""
    for url in (NOBODY.replace(":x@", ":secret@"), "nonsense://secret", "postgresql://a:secret@127.0.0.1:99999/x"):
        with pytest.raises(LedgerUnavailableError) as caught:
            await LedgerDatabase(url).states(["t_a"])
        assert "secret" not in str(caught.value)


# --- counters from the ledger --------------------------------------------------------------------------------------


async def test_counters_come_back_from_both_places(tenant: Tenant) -> None:
    """After a loss they are what Postgres and the stream hold together, for the tenant and for each assistant."""
    await tenant.settle("a", "b", "c")
    await tenant.settle("alone", scope="")
    await tenant.move()
    await tenant.settle("d")
    async with raw(tenant.redis_url) as client:
        stream = await client.xrange(naming.ledger_stream(tenant.key))
        await tenant.lose()
        for name, fields in stream:
            await client.xadd(naming.ledger_stream(tenant.key), fields, name)
    fresh = Tenant(tenant.redis, tenant.database, tenant.url, tenant.key)  # a process that has seen nothing
    with pytest.raises(RebuildNeededError):
        await fresh.quota.reserve(fresh.limits, "x", Amount(1, 1), 1000)
    await rebuild(fresh.redis, fresh.quota, fresh.limits, fresh.database)
    assert await fresh.used() == (5, 5 * sum(TOKENS), 5 * COST)
    usage = await fresh.quota.usage(fresh.limits)
    assert (usage["assistant:support"].entries, usage["assistant:support"].tokens) == (4, 4 * sum(TOKENS))
    assert await fresh.drifts() == []


async def test_an_entry_that_is_in_the_stream_twice_counts_once(tenant: Tenant) -> None:
    """A Redis that lost its records of requests but not the stream takes the same settling again."""
    await tenant.settle("a")
    async with raw(tenant.redis_url) as client:
        ((_, fields),) = await client.xrange(naming.ledger_stream(tenant.key))
        await tenant.lose()
        for _ in range(2):
            await client.xadd(naming.ledger_stream(tenant.key), fields)
    await rebuild(tenant.redis, tenant.quota, tenant.limits)
    assert await tenant.used() == (1, sum(TOKENS), COST)


async def test_calls_of_the_last_hour_are_not_charged_again(tenant: Tenant) -> None:
    """A process that does not know whether its settling arrived says it again; the ledger in Postgres knows."""
    await tenant.settle("a")
    await tenant.move()
    await tenant.lose()
    await tenant.reserve()
    other = Tenant(tenant.redis, tenant.database, tenant.url, tenant.key)
    await other.settle("a")
    assert await other.quota.reserve(other.limits, "a", Amount(1, 1), 1000) == Finished(sum(TOKENS), COST)
    assert (await tenant.used())[0] == 1


async def test_an_old_copy_of_redis_is_recognised_by_who_has_just_started(tenant: Tenant) -> None:
    """Redis comes back from a copy whose stream holds what was moved since: the ledger knows, and nothing doubles."""
    await tenant.lose()
    await tenant.reserve()  # the ledger knows this epoch
    await tenant.settle("a", "b")
    names = [str(key) for key in tenant.limits.keys[1:]]
    async with raw(tenant.redis_url) as client:
        state, requests = [await client.hgetall(name) for name in names[:2]]
        stream = await client.xrange(names[3])
        await tenant.move()
        await tenant.settle("c", "d")
        await tenant.move()
        await tenant.lose()
        await client.hset(names[0], mapping=state)
        await client.hset(names[1], mapping=requests)
        for name, fields in stream:
            await client.xadd(names[3], fields, name)
    fresh = Tenant(tenant.redis, tenant.database, tenant.url, tenant.key)
    fresh.drain._learned = lambda found: fresh.quota.expect(found.tenant, found.epoch, found.entries)
    await fresh.drain.turn()
    with pytest.raises(RebuildNeededError):
        await fresh.quota.reserve(fresh.limits, "x", Amount(1, 1), 1000)
    await rebuild(fresh.redis, fresh.quota, fresh.limits, fresh.database)
    assert await fresh.used() == (4, 4 * sum(TOKENS), 4 * COST)
    assert await tenant.rows() == ["a", "b", "c", "d"]
    assert await fresh.drifts() == []


async def test_the_ledger_is_believed_when_redis_is_right(tenant: Tenant) -> None:
    """What a starting process learns from the ledger makes it distrust nothing that is in order."""
    await tenant.lose()
    await tenant.reserve()
    await tenant.settle("a", "b")
    await tenant.move()
    await tenant.settle("c")
    learned = []
    fresh = Tenant(tenant.redis, tenant.database, tenant.url, tenant.key)
    fresh.drain._learned = learned.append
    await fresh.drain._learn([tenant.key])
    (state,) = learned
    assert (state.entries, state.epoch > 1, state.last is not None) == (2, True, True)
    fresh.quota.expect(state.tenant, state.epoch, state.entries)
    assert await fresh.quota.reserve(fresh.limits, "x", Amount(1, 1), 1000)


async def test_nobody_is_admitted_while_nobody_can_know(tenant: Tenant) -> None:
    """Counters lost and Postgres away: refused, however often it is tried; then exact."""
    await tenant.settle("a")
    await tenant.move()
    await tenant.lose()
    away = LedgerDatabase(NOBODY)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="Redis has lost the counters"):
            await rebuild(tenant.redis, tenant.quota, tenant.limits, away)
        with pytest.raises(RebuildNeededError):
            await tenant.quota.reserve(tenant.limits, "x", Amount(1, 1), 1000)
    await tenant.reserve()
    assert await tenant.used() == (1, sum(TOKENS), COST)


async def test_a_rebuild_amid_drains_and_settlements_counts_each_call_once(tenant: Tenant, redis_store) -> None:
    """Entries that are moved and removed between two looks of a rebuild are neither missed nor counted twice."""
    async with tenant_of(redis_store.gateway_url, tenant.url, tenant.key) as other:
        drains = [asyncio.create_task(one.drain.run()) for one in (tenant, other)]
        names = [f"c{number:03}" for number in range(600)]
        for number, name in enumerate(names):
            await other.settle(name)
            if number % 60 == 59:
                await tenant.quota.invalidate(tenant.limits)
                await tenant.reserve(f"hold {number}")
        async with asyncio.timeout(20):
            while await tenant.waiting():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for task in drains:
            task.cancel()
    assert await tenant.rows() == names
    assert await tenant.used() == (600, 600 * sum(TOKENS), 600 * COST)
    assert await tenant.drifts() == []


# --- ledger and counters compared ------------------------------------------------------------------------------------


async def test_a_difference_is_told_and_nothing_is_mended(tenant: Tenant) -> None:
    """A row without a count, and a count without a row, are shown in log and metric until they are gone."""
    await tenant.settle("a", "b")
    await tenant.move()
    assert await tenant.drifts() == []
    async with raw(tenant.redis_url) as client:
        fields = {"at": str(time.time_ns() // 1000), "entry": encode_entry(entry("unknown to the counters"))}
        name = await client.xadd(naming.ledger_stream(tenant.key), fields)
        with capture_logs() as lines:
            await tenant.comparison.turn()
            await tenant.comparison.turn()
        assert metric("assistant_ledger_drift", tenant="acme", what="entries") == 1
        assert metric("assistant_ledger_drift", tenant="acme", what="tokens") == sum(TOKENS)
        assert metric("assistant_ledger_drift", tenant="acme", what="cost_micros") == COST
        assert [line["log_level"] for line in lines] == ["error"]  # once, not at each turn
        assert (await tenant.used())[0] == 2
        await client.xdel(naming.ledger_stream(tenant.key), name)
    await tenant.comparison.turn()
    assert REGISTRY.get_sample_value("assistant_ledger_drift", {"tenant": "acme", "what": "entries"}) is None
    await tenant.quota.settle(tenant.limits, "no entry", Amount(100, 0), b"")
    found = await tenant.drifts()
    assert found is not None
    assert {(drift.scope, drift.what, drift.window, drift.size) for drift in found} == {
        (scope, "tokens", window, 100)
        for scope in ("tenant", "assistant:support")
        for window in ("day", "month", "ever")
    }


async def test_calls_that_are_settled_meanwhile_are_no_difference(tenant: Tenant, redis_store) -> None:
    """Under load the comparison finds nothing, because nothing is wrong."""
    async with tenant_of(redis_store.gateway_url, tenant.url, tenant.key) as other:
        drain = asyncio.create_task(other.drain.run())
        load = asyncio.create_task(other.settle(*(f"c{number}" for number in range(4000))))
        looks = 0
        while not load.done():
            assert await tenant.drifts() == []
            looks += 1
        await load
        drain.cancel()
    assert looks > 3


async def test_one_process_compares_at_a_time(tenant: Tenant, redis_store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes one has its turn in each interval."""
    turns: list[str] = []
    async with tenant_of(redis_store.gateway_url, tenant.url, tenant.key) as other:
        for one in (tenant, other):

            async def turn(name: str = one.comparison._process) -> None:
                turns.append(name)

            monkeypatch.setattr(one.comparison, "turn", turn)
            one.comparison._seconds = 1.0
        tasks = [asyncio.create_task(one.comparison.run()) for one in (tenant, other)]
        await asyncio.sleep(4)
        for task in tasks:
            task.cancel()
    assert 2 <= len(turns) <= 4
