"""The Lease is kept from a thread of its own, whatever the operator's loop does."""

import asyncio
import contextlib

from operator_leases import Leases

from assistant_operator.keeper import Keeper
from assistant_operator.lease import Lease


@contextlib.asynccontextmanager
async def keeping(leases, name, duration=1.0):
    lease = Lease("platform", "assistant-operator", name, duration=duration)
    keeper = Keeper(lease, lambda: leases)
    keeper.start()
    try:
        yield lease, keeper
    finally:
        await keeper.stop()


async def test_a_loop_that_stands_still_loses_no_lease():
    """For several times as long as the Lease lasts the operator's loop does nothing, and leads all the same."""
    leases = Leases()
    async with keeping(leases, "one") as (lease, keeper):
        await keeper.acquired()
        lost = asyncio.create_task(keeper.lost())
        leases.wait_for_writes(20)
        assert lease.held
        await asyncio.sleep(0)
        assert not lost.done()
        lost.cancel()
    assert leases.lease["spec"]["holderIdentity"] == ""


async def test_a_lost_lease_is_noticed_and_can_be_won_again():
    """Cut off from the API server, the operator knows by its own clock; it leads again in the same process."""
    leases = Leases()
    async with keeping(leases, "one") as (lease, keeper):
        await keeper.acquired()
        leases.down = True
        await asyncio.wait_for(keeper.lost(), 60)
        assert not lease.held
        leases.down = False
        await asyncio.wait_for(keeper.acquired(), 60)
        assert lease.held


async def test_a_taken_lease_is_lost_and_a_new_term_begins_with_the_next():
    """What began before another led is over, also when this operator leads again."""
    leases = Leases()
    async with keeping(leases, "one") as (lease, keeper):
        await keeper.acquired()
        first = lease.term
        lost = asyncio.create_task(keeper.lost())
        leases.lease["spec"] |= {"holderIdentity": "thief", "renewTime": "x", "leaseDurationSeconds": 1}
        await asyncio.wait_for(lost, 60)
        await asyncio.wait_for(keeper.acquired(), 60)
        assert lease.term > first


async def test_of_two_one_leads_and_the_other_follows_at_once():
    """A Lease that was released in good order is taken without waiting for its end."""
    leases = Leases()
    async with keeping(leases, "two", duration=600.0) as (_, other), keeping(leases, "one") as (_, keeper):
        done, _ = await asyncio.wait(
            [asyncio.create_task(other.acquired()), asyncio.create_task(keeper.acquired())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert len(done) == 1


async def test_a_thread_that_fails_is_told():
    """Without whoever keeps the Lease there is no operator."""

    def connect():
        raise RuntimeError("no configuration")

    keeper = Keeper(Lease("platform", "assistant-operator", "one"), connect)
    keeper.start()
    await asyncio.wait_for(keeper.failed.wait(), 60)
    await keeper.stop()
