"""Stores are asked once for all tenants."""

import asyncio

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
