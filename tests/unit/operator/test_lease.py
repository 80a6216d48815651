"""One operator leads; whoever cannot be sure of it does not write."""

import asyncio

import pytest
from operator_leases import Leases

from assistant_operator.errors import NotLeaderError
from assistant_operator.lease import DURATION, Lease


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(params=[DURATION, 5.0])
def duration(request):
    """How long a Lease is held, as the platform team may set it."""
    return request.param


def operator(leases, clock, name, duration=DURATION):
    lease = Lease("platform", "assistant-operator", name, clock, duration)
    lease.attach(leases)
    return lease


async def test_the_first_one_leads_and_the_second_waits(duration):
    """A Lease that is renewed is never taken."""
    leases, clock = Leases(), Clock()
    one, two = operator(leases, clock, "one", duration), operator(leases, clock, "two", duration)
    assert await one.attempt()
    for _ in range(20):
        clock.now += one.period
        assert await one.attempt()
        assert not await two.attempt()
    one.guard()
    with pytest.raises(NotLeaderError):
        two.guard()


@pytest.mark.parametrize("watcher", [DURATION, 5.0])
async def test_a_lease_that_is_not_renewed_is_taken_after_its_time(duration, watcher):
    """The successor waits by its own clock, from when it first saw the last sign of life, and by the Lease's duration.

    While the platform is upgraded its own duration may be another.
    """
    leases, clock = Leases(), Clock()
    one, two = operator(leases, clock, "one", duration), operator(leases, clock, "two", watcher)
    await one.attempt()
    assert not await two.attempt()
    clock.now += duration - 0.1
    assert not await two.attempt()
    clock.now += 0.2
    assert await two.attempt()
    assert leases.lease["spec"]["holderIdentity"] == "two"
    assert leases.lease["spec"]["leaseTransitions"] == 2


async def test_writes_stop_before_another_may_lead(duration):
    """Cut off from the API server, the holder refuses writes well before its Lease can be taken."""
    leases, clock = Leases(), Clock()
    one = operator(leases, clock, "one", duration)
    await one.attempt()
    leases.down = True
    clock.now += one.deadline - 0.1
    assert await one.attempt()
    one.guard()
    clock.now += 0.2
    assert not await one.attempt()
    with pytest.raises(NotLeaderError):
        one.guard()
    assert one.deadline < leases.lease["spec"]["leaseDurationSeconds"] - one.period


async def test_a_renewal_counts_from_when_it_was_asked_for():
    """A slow answer does not lengthen the time for which the holder believes that it leads."""
    leases, clock = Leases(), Clock()
    one = operator(leases, clock, "one")

    async def slowly(kind, name, namespace):
        clock.now += 5

    leases.get = slowly
    await one.attempt()
    clock.now += one.deadline - 5.1
    assert one.held
    clock.now += 0.2
    assert not one.held


async def test_who_finds_another_holder_stops_at_once():
    """A Lease that was taken is not held any more, whatever the clock says."""
    leases, clock = Leases(), Clock()
    one = operator(leases, clock, "one")
    await one.attempt()
    leases.lease["spec"] |= {"holderIdentity": "thief", "renewTime": "x"}
    assert not await one.attempt()
    assert not one.held


async def test_a_released_lease_is_taken_at_once():
    """An operator that ends in good order does not make its successor wait."""
    leases, clock = Leases(), Clock()
    one, two = operator(leases, clock, "one"), operator(leases, clock, "two")
    await one.attempt()
    assert not await two.attempt()
    await one.release()
    assert not one.held
    assert await two.attempt()


async def test_of_two_that_see_a_free_lease_one_gets_it():
    """The API server's versions decide a race."""
    leases, clock = Leases(), Clock()
    contenders = [operator(leases, clock, str(number)) for number in range(5)]
    assert sum(await asyncio.gather(*(lease.attempt() for lease in contenders))) == 1


async def test_a_restarted_holder_of_the_same_name_goes_on_at_once():
    """A container that was restarted in its pod need not wait for its own Lease to run out."""
    leases, clock = Leases(), Clock()
    await operator(leases, clock, "one").attempt()
    assert await operator(leases, clock, "one").attempt()


async def test_a_term_lasts_until_another_has_led():
    """Renewals, also late ones, go on with the term; what was begun before another held the Lease is over."""
    leases, clock = Leases(), Clock()
    one, two = operator(leases, clock, "one"), operator(leases, clock, "two")
    await one.attempt()
    first = one.term
    clock.now += one.deadline + 1
    assert not one.held
    assert await one.attempt()
    assert (one.held, one.term) == (True, first)
    assert not await two.attempt()
    clock.now += DURATION + 1
    assert await two.attempt()
    assert not await one.attempt()
    clock.now += DURATION + 1
    assert await one.attempt()
    assert one.term > first
