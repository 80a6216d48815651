"""How large a lease is, when it may be drawn on, and when it is given back, on a clock and a Redis that obey."""

import pytest

from assistant_gateway.limits.leases import Leases, Rules, covers
from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.quota import Admitted, Refused, Remaining, Renewal
from assistant_gateway.limits.redis import UnavailableError

RULES = Rules(unwritten=5, admit=300, renew=10, idle=300, grace=3)
TENANT = LimitScope("tenant", tokens=100_000)
SUPPORT = LimitScope("assistant", "support", requests_per_minute=60, budget=50_000, period="Day")
TERMS = LimitSet.of("acme", "t_1", "UTC", [TENANT, SUPPORT], assistant="support")
FULL = Admitted(0, (Remaining(None, 0, 100_000, None), Remaining(60, 0, None, 50_000)))
WORST = Amount(1000, 500)


class FakeQuota:
    """Says yes, unless told otherwise, and remembers what is held."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[Limits, Amount]] = {}
        self.renewal = Renewal.KEPT
        self.away = False

    async def reserve(self, limits: Limits, request: str, worst: Amount, hold: int) -> Admitted:
        self.held[request] = (limits, worst)
        if self.away:
            raise UnavailableError("away")
        return Admitted(0, ())

    async def renewed(self, limits: Limits, request: str, worst: Amount, hold: int) -> Renewal:
        if self.away:
            raise UnavailableError("away")
        return self.renewal

    async def settle(self, limits: Limits, request: str, used: Amount, entry: bytes) -> None:
        assert (used, entry) == (Amount(0, 0), b"")
        assert "tenant" in limits.fields  # the script reads its counters
        del self.held[request]

    def leave(self, limits: Limits, request: str) -> None:
        """Nothing to do."""


class World:
    """Leases with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.quota = FakeQuota()
        self.leases = Leases(self.quota, RULES, lambda: self.now)  # type: ignore[arg-type]

    async def pass_time(self, seconds: float, *, available: bool = True) -> None:
        """Look after so long."""
        self.now += seconds
        await self.leases.look(available=available)

    async def take(self) -> None:
        """Take leases, and keep them until Redis has surely written them down."""
        self.leases.note(TERMS, FULL)
        await self.pass_time(0.2)
        await self.pass_time(6)

    def draw(self, call: str = "call", worst: Amount = WORST) -> bool:
        """Admit a call if there is room."""
        found = self.leases.room(TERMS, worst)
        if found is not None:
            self.leases.draw(found, call, worst)
        return found is not None


@pytest.fixture
def world() -> World:
    """A process that has no leases yet."""
    return World()


@pytest.mark.parametrize(
    ("left", "size"),
    [
        (Remaining(None, 0, 100_000, None), Amount(5000, 0)),
        (Remaining(None, 0, None, 50_000), Amount(0, 2500)),
        (Remaining(None, 0, 10**9, 10**9), Amount(100_000, 1_000_000)),
        (Remaining(None, 0, 19_999, None), None),
        (Remaining(None, 0, 10**9, 19_999), None),
    ],
)
def test_a_lease_is_a_small_share_with_a_ceiling_or_nothing(left: Remaining, size: Amount | None) -> None:
    """A twentieth of what is left, no more than the ceiling, and none where that is too little for a call."""
    assert RULES.size(left) == size


@pytest.mark.parametrize(
    ("now", "good"),
    [
        (LimitScope("tenant", tokens=10), True),
        (LimitScope("tenant", tokens=11), True),
        (LimitScope("tenant", tokens=9), False),
        (LimitScope("tenant"), True),
        (LimitScope("tenant", tokens=10, budget=5), False),
    ],
)
def test_a_lease_covers_only_limits_that_are_no_stricter(now: LimitScope, *, good: bool) -> None:
    """A limit that was lowered or added meanwhile was not asked when the lease was taken."""
    assert covers(LimitScope("tenant", tokens=10), now) is good


def test_a_budget_of_another_period_is_another_limit() -> None:
    """What is left of a month says nothing about a day."""
    assert not covers(LimitScope("tenant", budget=5, period="Month"), LimitScope("tenant", budget=5, period="Day"))


async def test_each_level_has_a_lease_of_its_own_without_its_rate(world: World) -> None:
    """A hold on the tenant and one on the assistant, so that several assistants do not add up on the tenant."""
    await world.take()
    held = {limits.fields: (limits.arguments, amount) for limits, amount in world.quota.held.values()}
    assert held == {
        ("tenant",): (("tenant", 0, 0, 100_000, -1, "Month"), Amount(5000, 0)),
        ("assistant:support",): (("assistant:support", 0, 0, -1, 50_000, "Day"), Amount(0, 2500)),
    }


async def test_a_call_has_to_fit_every_level(world: World) -> None:
    """Money on the assistant and tokens on the tenant, worst cases of calls under way included."""
    await world.take()
    assert not world.draw("a", Amount(5001, 1))
    assert not world.draw("b", Amount(1, 2501))
    assert world.draw("c", Amount(4001, 2000))
    assert not world.draw("d")
    world.leases.used("c", Amount(10, 10))
    assert world.draw("d")


async def test_a_new_lease_is_not_used_before_redis_has_surely_written_it(world: World) -> None:
    """What was answered a moment ago may be lost with the end of Redis's log, so it is confirmed once more."""
    world.leases.note(TERMS, FULL)
    await world.pass_time(0.2)
    assert not world.draw()
    await world.pass_time(60, available=False)
    assert not world.draw()  # no answer since
    await world.pass_time(1)
    assert world.draw()


async def test_a_lease_ends_long_before_its_hold_does(world: World) -> None:
    """A process that has been cut off for so long admits no more, whatever is left."""
    await world.take()
    await world.pass_time(299, available=False)
    assert world.draw("a")
    await world.pass_time(2, available=False)
    assert not world.draw("b")


async def test_a_lease_that_redis_had_lost_is_not_used_again(world: World) -> None:
    """Its room may have been given to others; it is given back, and a new one taken with the next call."""
    await world.take()
    world.quota.renewal = Renewal.PUT_BACK
    await world.pass_time(11)
    assert not world.draw()
    await world.pass_time(0.2)
    assert not world.quota.held
    world.quota.renewal = Renewal.KEPT
    await world.take()
    assert world.draw()


async def test_a_lease_is_kept_until_its_calls_are_settled(world: World) -> None:
    """Given back earlier, others could use what was used already."""
    await world.take()
    assert world.draw()
    await world.pass_time(20)
    world.leases.used("call", Amount(1, 1))
    await world.pass_time(400)  # long idle, but a call is not settled
    assert len(world.quota.held) == 2
    world.leases.settled("call")
    await world.pass_time(0.2)
    assert not world.quota.held


async def test_idle_leases_are_given_back(world: World) -> None:
    """A tenant that does not call needs none."""
    await world.take()
    await world.pass_time(301)
    assert not world.quota.held


async def test_a_refused_call_gets_the_leases_room(world: World) -> None:
    """A refusal for want of tokens gives the lease of that level back; one that can never fit does not."""
    await world.take()
    world.leases.note(TERMS, Refused(TENANT, "tokens", None, 1, 1))
    await world.pass_time(0.2)
    assert len(world.quota.held) == 2
    world.leases.note(TERMS, Refused(TENANT, "tokens", 1_000_000, 1, 1))
    await world.pass_time(0.2)
    assert [limits.fields for limits, _ in world.quota.held.values()] == [("assistant:support",)]


async def test_a_lease_shrinks_with_what_is_left(world: World) -> None:
    """At less than half of the size it was taken for it is replaced, and where the rest is small there is none."""
    await world.take()
    rest = Admitted(0, (Remaining(None, 0, 40_000, None), Remaining(60, 0, None, 50_000)))
    world.leases.note(TERMS, rest)
    await world.pass_time(0.2)
    world.leases.note(TERMS, rest)
    await world.pass_time(0.2)
    assert sorted(amount.tokens for _, amount in world.quota.held.values()) == [0, 2000]
    world.leases.note(TERMS, Admitted(0, (Remaining(None, 0, 10_000, None), Remaining(60, 0, None, 50_000))))
    await world.pass_time(0.2)
    assert [amount.tokens for _, amount in world.quota.held.values()] == [0]


async def test_a_lease_that_was_asked_for_in_vain_is_given_back(world: World) -> None:
    """Redis may hold it although no answer came."""
    world.quota.away = True
    world.leases.note(TERMS, FULL)
    await world.pass_time(0.2)
    assert len(world.quota.held) == 2
    world.quota.away = False
    await world.pass_time(0.2)
    assert not world.quota.held


async def test_after_an_outage_everyone_tells_before_anything_is_restored(world: World) -> None:
    """A Redis that is just back may have lost what others used: for a moment nothing is rebuilt."""
    await world.pass_time(0)
    assert not world.leases.others_first
    await world.pass_time(10, available=False)
    await world.pass_time(1)
    assert world.leases.others_first
    assert not world.leases.overdue
    await world.pass_time(3.1)
    assert not world.leases.others_first


async def test_after_a_long_outage_nothing_is_admitted_for_a_moment(world: World) -> None:
    """Leases may have expired although they were used: who used them settles first."""
    await world.pass_time(0, available=False)
    await world.pass_time(301, available=False)
    await world.pass_time(0.2)
    assert world.leases.overdue
    await world.pass_time(3.1)
    assert not world.leases.overdue


async def test_shutdown_gives_back_what_nobody_uses(world: World) -> None:
    """A lease with a call that is not settled stays, and expires."""
    await world.take()
    await world.leases.close(available=True)
    assert not world.quota.held
    world.leases.note(TERMS, FULL)
    await world.pass_time(0.2)
    assert not world.quota.held


async def test_a_tenant_that_is_gone_is_forgotten_without_a_word(world: World) -> None:
    """Its counters were removed, and a question about them would make them again."""
    await world.take()
    world.leases.forget("t_1")
    await world.pass_time(20)
    assert len(world.quota.held) == 2
    assert not world.draw()
