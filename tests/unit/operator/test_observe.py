"""What no event tells is asked for, and wakes the queue only when it differs."""

from types import SimpleNamespace

from assistant_crds.contracts import ModelProbe, TenantProbe
from assistant_operator.errors import ProbeError
from assistant_operator.observe import Observer
from assistant_operator.observed import Counts, GatewayView
from assistant_operator.reconcile.context import Memory, Report


class World:
    """The gateway and the stores of one tenant."""

    def __init__(self):
        self.reachable = True
        self.down = False
        self.vectors_now = 3
        self.woken = []
        self.memory = Memory()
        self.settings = SimpleNamespace(observe_seconds=15)
        self.health = SimpleNamespace(error=lambda store: "")
        self.probes = self
        self.postgres = SimpleNamespace(rows=self._rows)
        self.weaviate = SimpleNamespace(vectors=self._vectors)
        self.observer = Observer(self, self.woken.append, rate=10_000)

    async def gateway(self, namespace):
        if self.down:
            raise ProbeError("no connection.")
        return self.probe()

    def probe(self):
        model = ModelProbe(reachable=self.reachable, reason="Reachable", message="")
        return TenantProbe(generation="p1", assistants={"support": model}, knowledge_bases={})

    async def _rows(self, tenant):
        return {}

    async def _vectors(self, key):
        return self.vectors_now

    def report(self, bases=("k",)):
        counts = {key: Counts(0, 0, 0, 0, 3) for key in bases}
        self.memory.reported["acme"] = Report("t_1", frozenset(bases), GatewayView(self.probe()), counts)


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


async def test_counts_are_asked_for_every_third_round():
    """Documents change more slowly than they cost to count."""
    world = World()
    world.report()
    await world.observer.round()
    world.vectors_now = 4
    await world.observer.round()
    await world.observer.round()
    assert world.woken == []
    await world.observer.round()
    assert world.woken == ["acme"]


async def test_a_fault_in_one_tenant_does_not_end_the_round():
    """Whatever goes wrong with one, the others are asked."""
    world = World()
    world.report()
    world.memory.reported = {"broken": None, **world.memory.reported}
    world.reachable = False
    await world.observer.round()
    assert world.woken == ["acme"]
