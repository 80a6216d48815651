"""Of many tenants the gateway tells in one answer what is new."""

import asyncio
from types import SimpleNamespace

from assistant_crds.contracts import TenantProbe, digest
from assistant_gateway.tenants import probe_changes
from assistant_gateway.tenants.probe_changes import ProbeChanges


class World:
    """Tenants, of whom `late` ones are never done."""

    def __init__(self, *late):
        self.late = late
        self.generation = "1"
        self.changes = ProbeChanges(self, self, self.tenant)

    def tenant(self, namespace):
        if namespace == "gone":
            return None
        return SimpleNamespace(namespace=namespace, terms=None, levels={})

    async def probe(self, tenant):
        if tenant.namespace in self.late:
            await asyncio.Event().wait()
        return TenantProbe(generation=self.generation, assistants={}, knowledge_bases={})

    async def usage(self, terms, levels):
        return None

    async def since(self, **known):
        return (await self.changes.since(known)).changed


async def test_only_what_is_new_is_told():
    """By the digest of what the operator has; a tenant without a policy is told each time, in two words."""
    world = World()
    first = await world.since(a="", b="", gone="")
    assert list(first) == ["a", "b", "gone"]
    assert first["gone"] is None
    known = {name: digest(first[name]) for name in "ab"}
    assert await world.since(**known) == {}
    world.generation = "2"
    assert (await world.since(**known))["a"].generation == "2"
    assert await world.since() == {}


async def test_one_that_takes_too_long_holds_up_nobody(monkeypatch):
    """It is left out, and what the operator knows of it stays."""
    monkeypatch.setattr(probe_changes, "SECONDS", 0.05)
    assert list(await World("slow").since(a="", slow="", b="")) == ["a", "b"]


async def test_many_tenants_leave_the_loop_to_others():
    """Whatever else waits has its turn after every few tenants."""
    world, turns = World(), []

    async def other():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await world.since(**{f"t{number}": "" for number in range(400)})
    task.cancel()
    assert len(turns) >= 2 * 400 // probe_changes.AT_A_TIME
