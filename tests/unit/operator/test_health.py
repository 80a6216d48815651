"""Stores are asked once for all tenants."""

import asyncio
from types import SimpleNamespace

from assistant_operator.errors import StoreUnreachableError
from assistant_operator.health import FAILURES, StoreHealth


class Store:
    def __init__(self):
        self.life = "1"
        self.error = None

    async def ping(self):
        if self.error:
            raise self.error
        return self.life


def health():
    store, woken = Store(), []
    return store, woken, StoreHealth({"redis": store.ping}, lambda: woken.append(1))


async def test_a_store_is_up_until_it_failed_twice():
    """One lost answer is no outage; the second one in a row wakes every tenant, once."""
    store, woken, state = health()
    await state.check()
    store.error = StoreUnreachableError("redis", "ping failed (ConnectionError).")
    await state.check()
    assert state.error("redis") == ""
    for _ in range(FAILURES):
        await state.check()
    assert state.error("redis") == "it does not answer."
    assert len(woken) == 1


async def test_a_store_that_is_back_wakes_every_tenant():
    """Recovery needs no touch; what was checked before the outage is checked again."""
    store, woken, state = health()
    await state.check()
    life = state.incarnation("redis")
    store.error = StoreUnreachableError("redis", "x")
    for _ in range(FAILURES):
        await state.check()
    store.error, store.life = None, ""
    await state.check()
    assert state.error("redis") == ""
    assert len(woken) == 2
    assert state.incarnation("redis") != life


async def test_a_new_life_wakes_every_tenant():
    """A server that was started anew between two questions may have lost what it knew."""
    store, woken, state = health()
    await state.check()
    assert woken == []
    store.life = "2"
    await state.check()
    assert len(woken) == 1
    await state.check()
    assert len(woken) == 1


def three(*late):
    """Return the health of three stores, of which some do not answer in time, and what was woken."""
    woken = []
    stores = {name: Store() for name in ("postgres", "redis", "weaviate")}
    for name in late:
        stores[name].error = StoreUnreachableError(name, "ping failed (TimeoutError).")
    clock = SimpleNamespace(now=0.0)
    return (
        stores,
        woken,
        clock,
        StoreHealth({name: store.ping for name, store in stores.items()}, lambda: woken.append(1), lambda: clock.now),
    )


async def test_all_stores_late_at_once_is_the_operators_own_trouble():
    """None is called down; how long it lasts is told, and its end wakes every tenant."""
    stores, woken, clock, state = three("postgres", "redis", "weaviate")
    await state.check()
    assert state.overloaded is None
    await state.check()
    assert state.overloaded == 0
    assert {state.error(name) for name in stores} == {"no store answers the operator in time, all at once."}
    clock.now = 7
    await state.check()
    assert state.overloaded == 7
    assert len(woken) == 1
    for store in stores.values():
        store.error = None
    await state.check()
    assert state.overloaded is None
    assert {state.error(name) for name in stores} == {""}
    assert len(woken) == 2


async def test_stores_that_refuse_or_are_late_alone_are_down():
    """One that is late beside others that answer is down, and so are all when one of them refuses."""
    for late, refusing in ((("postgres",), ()), (("postgres", "redis"), ("weaviate",))):
        stores, _, _, state = three(*late)
        for name in refusing:
            stores[name].error = StoreUnreachableError(name, "ping failed (ConnectionRefusedError).")
        for _ in range(FAILURES):
            await state.check()
        assert state.overloaded is None
        assert {name for name in stores if state.error(name)} == {*late, *refusing}
        assert {state.error(name) for name in late} == {"it does not answer."}


async def test_overload_that_turns_into_one_stores_outage_names_that_store():
    """What was everyone's lateness becomes one store's fault once the others answer."""
    stores, _, _, state = three("postgres", "redis", "weaviate")
    for _ in range(FAILURES):
        await state.check()
    stores["redis"].error = stores["weaviate"].error = None
    for _ in range(FAILURES):
        await state.check()
    assert state.overloaded is None
    assert {name for name in stores if state.error(name)} == {"postgres"}


async def test_no_answer_in_time_is_a_failure(monkeypatch):
    """A store that hangs is down like one that refuses."""
    monkeypatch.setattr("assistant_operator.health.PATIENCE_SECONDS", 0.01)

    async def hang():
        await asyncio.sleep(5)
        return ""

    state = StoreHealth({"postgres": hang}, lambda: None)
    for _ in range(FAILURES):
        await state.check()
    assert state.error("postgres")
