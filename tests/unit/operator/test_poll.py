"""What no event tells is asked for, and wakes the queue only when it differs."""

from types import SimpleNamespace

from assistant_crds.contracts import Budget, LevelUsage, ModelProbe, TenantProbe, TenantUsage
from assistant_operator.errors import ProbeError, StoreUnreachableError
from assistant_operator.poll import TURN_SECONDS, Poller
from assistant_operator.reconcile.context import Memory, Report
from assistant_operator.tenant import usage
from assistant_operator.tenant.limits import Quota
from assistant_operator.tenant.observation import Counts, GatewayView
from assistant_operator.tenant.usage import Quotas

QUOTAS = Quotas("acme", Quota(), {"support": Quota(budget=Budget(amount_micros=10**7, currency="USD", period="Month"))})


class World:
    """The gateway and the stores of one tenant."""

    def __init__(self):
        self.reachable = True
        self.down = False
        self.vectors_now = 3
        self.usage = None
        self.now = 0.0
        self.woken = []
        self.counted = 0
        self.memory = Memory()
        self.settings = SimpleNamespace(observe_seconds=15)
        self.health = SimpleNamespace(error=lambda store: "")
        self.probes = self
        self.activity_now = {"t_1": 7}
        self.postgres = SimpleNamespace(rows=self._rows, activity=self._activity)
        self.weaviate = SimpleNamespace(vectors=self._vectors)
        self.observer = Poller(self, self.woken.append, rate=10_000)

    async def gateway(self, namespace):
        if self.down:
            raise ProbeError("no connection.")
        return self.probe()

    def probe(self):
        model = ModelProbe(reachable=self.reachable, reason="Reachable", message="")
        return TenantProbe(generation="p1", assistants={"support": model}, knowledge_bases={}, usage=self.usage)

    def monotonic(self):
        return self.now

    async def spend(self, micros, period_ends="2026-12-01T00:00:00Z"):
        """Let the gateway report so much, and the observer look once."""
        level = LevelUsage(
            tokens=0,
            spent_micros=micros,
            day_ends="2026-11-24T00:00:00Z",
            period="Month",
            period_ends=period_ends,
        )
        self.usage = TenantUsage(tenant=level, assistants={"support": level})
        await self.observer.round()

    async def _activity(self):
        if self.activity_now is None:
            raise StoreUnreachableError("postgres", "activity failed (TimeoutError).")
        return self.activity_now

    async def _rows(self, tenant, knowledge_bases):
        return {}

    async def _vectors(self, key):
        self.counted += 1
        return self.vectors_now

    def report(self, bases=("k",), pending=0, held=False):
        counts = {key: Counts(0, pending, 0, 0, 3) for key in bases}
        digest = None if self.usage is None else usage.digest(QUOTAS, self.usage, held=held)
        view = GatewayView(self.probe()).steady
        self.memory.reported["acme"] = Report("t_1", frozenset(bases), view, counts, QUOTAS, digest)


async def test_nothing_new_wakes_nobody():
    """At rest the queue stays empty."""
    world = World()
    world.report()
    for _ in range(6):
        await world.observer.round()
    assert world.woken == []


async def test_a_model_or_gateway_that_changed_wakes_the_tenant():
    """Each round asks the gateway."""
    world = World()
    world.report()
    await world.observer.round()
    world.reachable = False
    await world.observer.round()
    assert world.woken == ["acme"]
    world.report()
    world.down = True
    await world.observer.round()
    assert world.woken == ["acme", "acme"]


async def test_documents_are_counted_where_rows_were_written():
    """One question tells it of all tenants; where nothing was written nobody counts, save once in a while."""
    world = World()
    world.report()
    await world.observer.round()
    await world.observer.round()
    counted = world.counted
    for _ in range(6):
        await world.observer.round()
    assert world.counted == counted
    world.activity_now = {"t_1": 8}
    world.vectors_now = 4
    await world.observer.round()
    assert world.woken == ["acme"]
    world.report()
    await world.observer.round()  # vectors are written beside the rows
    assert world.counted == counted + 2
    world.now = 1000.0
    await world.observer.round()
    assert world.counted == counted + 3


async def test_without_the_stores_word_documents_of_a_few_tenants_are_counted_each_time():
    """What was uploaded shows within seconds."""
    world = World()
    world.activity_now = None
    world.report()
    await world.observer.round()
    world.vectors_now = 4
    await world.observer.round()
    assert world.woken == ["acme"]


async def test_what_is_being_ingested_is_counted_each_time():
    """As long as documents are pending."""
    world = World()
    world.report(pending=1)
    for _ in range(4):
        await world.observer.round()
    assert world.woken == ["acme"] * 4


async def test_without_the_stores_word_documents_of_many_tenants_are_counted_every_third_round(monkeypatch):
    """They change more slowly than they cost to count."""
    monkeypatch.setattr("assistant_operator.poll.FEW", 0)
    world = World()
    world.activity_now = None
    world.report()
    await world.observer.round()
    world.vectors_now = 4
    await world.observer.round()
    await world.observer.round()
    assert world.woken == []
    await world.observer.round()
    assert world.woken == ["acme"]


async def test_statuses_of_a_new_day_are_spread_over_a_minute(monkeypatch):
    """Every tenant's day ends in the same second; what was used of the new one need not show in that second."""
    monkeypatch.setattr("assistant_operator.poll.random.uniform", lambda low, high: high)
    world = World()
    await world.spend(1_000_000)
    world.report()
    world.now = 1000.0
    await world.spend(0, "2027-01-01T00:00:00Z")
    assert world.woken == []
    world.now += TURN_SECONDS - 1
    await world.spend(0, "2027-01-01T00:00:00Z")
    assert world.woken == []
    world.now += 1
    await world.spend(0, "2027-01-01T00:00:00Z")
    assert world.woken == ["acme"]


async def test_a_fault_in_one_tenant_does_not_end_the_round():
    """Whatever goes wrong with one, the others are asked."""
    world = World()
    world.report()
    world.memory.reported = {"broken": None, **world.memory.reported}
    world.reachable = False
    await world.observer.round()
    assert world.woken == ["acme"]


async def test_spent_money_wakes_once_the_status_may_be_written_again():
    """Each call changes the usage; a run is worth it after the pause, and only for what shows."""
    world = World()
    await world.spend(1_000_000)
    world.report()
    world.memory.usage_due["acme"] = 60.0
    await world.spend(2_000_000)
    assert world.woken == []
    world.now = 60.0
    await world.spend(1_000_001)
    assert world.woken == []
    await world.spend(2_000_000)
    assert world.woken == ["acme"]


async def test_usage_that_a_run_held_back_is_shown_after_the_pause():
    """What a run saw but did not write is not forgotten."""
    world = World()
    await world.spend(2_000_000)
    world.memory.usage_due["acme"] = 60.0
    world.report(held=True)
    await world.spend(2_000_000)
    assert world.woken == []
    world.now = 60.0
    await world.spend(2_000_000)
    assert world.woken == ["acme"]


async def test_a_limit_that_is_reached_wakes_at_once():
    """80 % and 100 % do not wait for the pause, and are told once."""
    world = World()
    await world.spend(7_900_000)
    world.memory.usage_due["acme"] = 60.0
    world.report()
    await world.spend(8_000_000)
    assert world.woken == ["acme"]
    world.report()
    await world.spend(8_100_000)
    assert world.woken == ["acme"]
    await world.spend(10_000_000)
    assert world.woken == ["acme", "acme"]
