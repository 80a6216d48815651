"""Shares of what all tenants use: nobody has all, whoever waits is served, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.capacity.fairness import SHARED_SECONDS, BusyError, Crowd, Pace, Shares, Turns
from assistant_gateway.capacity.memory import MOST_WAITING, Memory
from assistant_gateway.errors import GatewayError


def soon(seconds: float = 5.0) -> float:
    """Return a moment on the loop's clock."""
    return asyncio.get_running_loop().time() + seconds


def greedy(shares: Shares, tenant: str) -> int:
    """Take one by one as much as there is; return how much that is."""
    while shares.take_now(tenant, 1):
        pass
    return shares.held(tenant)


@pytest.mark.parametrize("tenants", [1, 2, 3, 8])
def test_greedy_tenants_leave_a_part_for_the_next(tenants: int) -> None:
    """As they give back and take again they come to have as much as is left free, each of them."""
    shares = Shares(1000, ratio=1.0, most_waiting=1)
    for _ in range(40):
        for number in range(tenants):
            greedy(shares, str(number))
            shares.give(str(number), shares.held(str(number)) // 2)
    for number in range(tenants):
        greedy(shares, str(number))
    free = 1000 - shares.used
    assert free > 1000 // (2 * tenants + 2)
    assert shares.take_now("next", free // 2)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.booleans()), max_size=60),
    st.sampled_from([0.25, 1.0, 3.0]),
)
def test_nothing_is_lost_or_given_twice(steps: list[tuple[str, int, bool]], ratio: float) -> None:
    """However tenants take, wait, give up and give back: what is used is what they hold, and in the end nothing."""

    async def run() -> None:
        shares = Shares(100, ratio=ratio, most_waiting=2)
        tasks: list[tuple[str, int, asyncio.Task[None]]] = []

        async def ended(tenant: str, amount: int, task: asyncio.Task[None]) -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, BusyError):
                await task
                shares.give(tenant, amount)

        for tenant, amount, cancel in steps:
            task = asyncio.create_task(shares.take(tenant, amount, soon()))
            await asyncio.sleep(0)
            tasks.append((tenant, amount, task))
            assert 0 <= shares.used <= 100
            if cancel:
                await ended(*tasks.pop(0))
        while tasks:
            await ended(*tasks.pop(0))
            await asyncio.sleep(0)
        assert shares.used == 0
        assert all(shares.held(tenant) == 0 for tenant in "abc")
        assert shares.take_now("a", 1)

    asyncio.run(run())


async def test_a_tenant_that_holds_its_share_waits_until_it_gives_back() -> None:
    """Meanwhile another takes what it wants."""
    shares = Shares(100, ratio=1.0, most_waiting=4)
    await shares.take("a", 50, soon())
    waiting = asyncio.create_task(shares.take("a", 10, soon()))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert shares.take_now("b", 20)
    shares.give("a", 30)
    await waiting
    assert (shares.held("a"), shares.held("b")) == (30, 20)


async def test_who_is_at_its_share_hears_429_and_who_meets_others_503() -> None:
    """With when to come back; and a queue that is full is not waited for."""
    memory = Memory(1000)
    await memory.lease("a", 500)
    waiting = [asyncio.create_task(memory.lease("a", 100)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(GatewayError) as own:
        await memory.lease("a", 100)
    assert (own.value.status, own.value.retry_after) == (429, 1)
    waiting += [asyncio.create_task(memory.lease(f"t{number % 4}", 400)) for number in range(3 * MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(GatewayError) as others:
        await memory.lease("c", 400)
    assert (others.value.status, others.value.retry_after) == (503, 1)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_lease_is_given_back_once() -> None:
    """However often it is released, and whatever it grew and shrank to before."""
    memory = Memory(1000)
    lease = await memory.lease("a", 100)
    await lease.grow(100)
    assert lease.grow_now(50)
    assert not lease.grow_now(500)
    lease.shrink(70)
    assert memory.shares.used == 180
    lease.release()
    lease.release()
    assert memory.shares.used == 0


async def test_a_crowd_begins_in_rounds_between_which_others_have_theirs() -> None:
    """Of a hundred requests of one tenant a few begin before the first of another, which came last."""
    turns, order = Turns(4, alone=32), []
    await turns.take("honest")

    async def request(tenant: str) -> None:
        await turns.take(tenant)
        order.append(tenant)

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(request("hostile"))
        group.create_task(request("honest"))
    assert order.index("honest") <= 8
    assert len(order) == 101


async def test_a_tenant_alone_has_larger_rounds_until_another_asks() -> None:
    """Few requests in a round cost more processor time each: only worth it for the sake of somebody else."""
    now, order = 1000.0, []
    turns = Turns(4, alone=32, clock=lambda: now)

    async def rounds(*tenants: str) -> list[int]:
        """Return how many of the first tenant's requests began in each round of the loop."""
        order.clear()

        async def request(tenant: str) -> None:
            await turns.take(tenant)
            order.append(tenant)

        tasks = [asyncio.create_task(request(tenant)) for tenant in tenants]
        begun = [0]
        while len(order) < len(tenants):
            await asyncio.sleep(0)
            begun.append(order.count(tenants[0]))
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)
        return [after - before for before, after in itertools.pairwise(begun) if after > before]

    assert max(await rounds(*["one"] * 64)) == 32
    assert max(await rounds(*["one"] * 64, "@198.18.0.9")) == 32  # whoever that is
    assert max(await rounds("two", *["one"] * 64)) <= 4
    assert order.count("one") == 64
    assert max(await rounds(*["one"] * 16)) == 4  # two may come again soon
    now += SHARED_SECONDS
    assert max(await rounds(*["one"] * 64)) == 32


async def test_pieces_of_large_bodies_have_their_turn_tenant_by_tenant() -> None:
    """However many bodies a tenant sends: one piece of it in a round, two of all; the next begins with others.

    Small work of anybody goes round meanwhile as often as there are rounds.
    """
    turns, order, rounds = Turns(1, 2), [], 0

    async def body(tenant: str) -> None:
        for _ in range(3):
            await turns.take(tenant)
            order.append((rounds, tenant))

    async def count() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    counting = asyncio.create_task(count())
    async with asyncio.TaskGroup() as group:
        for tenant in "aaaaabbbbbc":
            group.create_task(body(tenant))
    counting.cancel()
    for number in range(rounds + 1):
        tenants = [tenant for at, tenant in order if at == number]
        assert len(tenants) <= 2
        assert len(set(tenants)) == len(tenants)
    assert [tenant for _, tenant in order].index("c") <= 4
    assert len(order) == 33


def test_a_crowd_of_one_tenant_holds_up_nobody_who_came_later() -> None:
    """Of those that wait some go together, of each tenant a few and of all in turn, until none is left."""
    now = 1000.0
    crowd: Crowd[str] = Crowd(8, 3, clock=lambda: now)
    for number in range(20):
        crowd.add("hostile", f"hostile {number}")
    for tenant in "abc":
        crowd.add(tenant, tenant)
    first, second = crowd.take(), crowd.take()
    assert first == ["hostile 0", "hostile 1", "hostile 2", "a", "b", "c"]
    crowd.add("d", "d")
    assert second == ["hostile 3", "hostile 4", "hostile 5"]
    assert crowd.take() == ["hostile 6", "hostile 7", "hostile 8", "d"]
    for number in range(10):
        crowd.add(f"t{number}", f"t{number}")
    taken = [crowd.take() for _ in range(2)]
    assert [len(found) for found in taken] == [8, 8]
    assert [one for found in taken for one in found if one.startswith("t")] == [f"t{number}" for number in range(10)]
    rest = crowd.take()
    assert len(rest) + len(crowd) == len(crowd.take_all()) + len(rest)
    assert (len(crowd), crowd.take()) == (0, [])
    now += SHARED_SECONDS
    for number in range(20):
        crowd.add("t9", f"t9 {number}")
    assert [len(crowd.take()) for _ in range(3)] == [8, 8, 4]


async def test_a_request_that_goes_away_while_it_waits_holds_up_nobody() -> None:
    """Its turn is the next one's, and when all is done nothing is left to do in each round."""
    turns = Turns(1)
    tasks = [asyncio.create_task(turns.take("one")) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[1:9]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not tasks[9].cancelled()
    for _ in range(3):
        await asyncio.sleep(0)
    assert turns._round is None
    assert not turns._queues


def test_what_comes_too_fast_waits() -> None:
    """A first part comes at once; then a tenant has so much a second, and another's time is its own."""
    pace = Pace(100.0, 50.0)
    assert pace.take("one", 50, 1000.0) == 0.0
    assert pace.take("one", 100, 1000.0) == pytest.approx(1.0)
    assert pace.take("two", 50, 1000.0) == 0.0
    assert pace.take("one", 0, 1001.0) == pytest.approx(0.0)
    assert pace.take("one", 50, 1002.0) == 0.0


def test_tenants_of_which_nothing_came_lately_are_forgotten() -> None:
    """A process does not grow with all tenants that ever were."""
    pace = Pace(100.0, 50.0)
    for number in range(5000):
        pace.take(str(number), 1, float(number))
    assert len(pace._paid) <= 1000
