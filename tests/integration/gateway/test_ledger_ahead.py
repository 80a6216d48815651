"""Calls that end while Redis is away are in the ledger before it is back, and are counted once when it is."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from ledger_database import make_ledger
from ledger_tenant import COST, TOKENS, Tenant, entry, tenant_of
from limiter_world import limiter_of, until

from assistant_cluster import stores
from assistant_gateway.errors import GatewayError
from assistant_gateway.ledger.database import LedgerDatabase
from assistant_gateway.ledger.entry import encode_entry
from assistant_gateway.limits.limit_scope import Amount, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import Admitted

USED = Amount(sum(TOKENS), COST)


@pytest.fixture(scope="module")
def own_store() -> Iterator[stores.Redis]:
    """A Redis that the tests freeze."""
    with stores.redis() as store:
        yield store


@pytest.fixture
async def database(postgres: stores.Postgres) -> AsyncIterator[LedgerDatabase]:
    """The ledger of a gateway."""
    made = LedgerDatabase(await make_ledger(postgres))
    yield made
    await made.close()


@pytest.fixture
async def tenant(own_store: stores.Redis, postgres: stores.Postgres) -> AsyncIterator[Tenant]:
    """Another gateway's hand on the stores, with a tenant of its own."""
    async with tenant_of(own_store.gateway_url, await make_ledger(postgres)) as made:
        made.key = f"t_{uuid.uuid4().hex[:10]}"
        made.limits = terms_of(made.key).limits
        yield made


def terms_of(key: str) -> LimitSet:
    """Limits of an assistant under a rate of requests, which is admitted without Redis too."""
    levels = [LimitScope("tenant"), LimitScope("assistant", "support", 60_000)]
    return LimitSet.of("acme", key, "Europe/Berlin", levels, assistant="support")


async def call(limiter: Limiter, terms: LimitSet, name: str) -> None:
    """Make a call."""
    try:
        await limiter.reserve(terms, name, Amount(0, 0))
    except GatewayError as error:  # pragma: no cover
        raise AssertionError(error.message) from error
    limiter.settle(terms.limits, name, USED, encode_entry(entry(name)))


async def test_a_killed_gateway_loses_no_call_that_ended_a_while_ago(
    own_store: stores.Redis, database: LedgerDatabase, tenant: Tenant
) -> None:
    """It admits calls alone and is killed before Redis is back: they are in the ledger, and in the counters soon."""
    terms = terms_of(tenant.key)
    async with limiter_of(own_store, database) as limiter:
        for number in range(4):  # more than it will have written: their entries are still in Redis
            await call(limiter, terms, f"before-{number}")
        await until(lambda: not limiter.unsettled)
        own_store.server.pause()
        for number in range(3):
            await call(limiter, terms, f"alone-{number}")
        await until(lambda: limiter.degraded and not len(limiter._ahead))
        assert limiter.unsettled == 3
        assert await tenant.rows() == ["alone-0", "alone-1", "alone-2"]
    own_store.server.resume()
    await until(lambda: tenant.redis.available)
    async with limiter_of(own_store, database) as other:
        tenant.drain._learned = lambda state: other.expect(state.tenant, state.epoch, state.entries)
        await tenant.drain.turn()
        assert isinstance(await other.reserve(terms, "after", Amount(0, 0)), Admitted)
        assert await tenant.used() == (7, 7 * sum(TOKENS), 7 * COST)


async def test_what_is_in_the_ledger_already_is_counted_once(
    own_store: stores.Redis, database: LedgerDatabase, tenant: Tenant
) -> None:
    """Redis comes back before the gateway goes: the calls are settled, and their entries are known."""
    terms = terms_of(tenant.key)
    async with limiter_of(own_store, database) as limiter:
        await call(limiter, terms, "before")
        await until(lambda: not limiter.unsettled)
        own_store.server.pause()
        await call(limiter, terms, "alone")
        await until(lambda: limiter.degraded and not len(limiter._ahead))
        own_store.server.resume()
        await until(lambda: not limiter.unsettled)
        await until(lambda: tenant.redis.available)
        await tenant.move()
        assert await tenant.rows() == ["alone", "before"]
        assert await tenant.used() == (2, 2 * sum(TOKENS), 2 * COST)
        assert await tenant.drifts() == []


async def test_a_gateway_that_ends_writes_what_redis_cannot_take(
    own_store: stores.Redis, database: LedgerDatabase, tenant: Tenant
) -> None:
    """It is told to end while Redis is away, right after a call."""
    terms = terms_of(tenant.key)
    async with limiter_of(own_store, database) as limiter:
        await call(limiter, terms, "before")
        await until(lambda: not limiter.unsettled)
        own_store.server.pause()
        await call(limiter, terms, "last")
        await limiter.close(1.0)
        assert await tenant.rows() == ["last"]
        own_store.server.resume()
        await until(lambda: not limiter.unsettled)
