"""What is new of many tenants, in one answer: the operator asks for all of them every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from assistant_crds.contracts import ProbesAnswer, TenantProbe, digest
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.tenants.reachability import Prober
from assistant_gateway.tenants.routing import Tenant

# Shorter than the operator waits.
SECONDS = 6.0
# So many tenants are begun before whatever else waits for the loop has its turn.
AT_A_TIME = 8
USAGES_AT_ONCE = 16  # questions to Redis


class ProbeChanges:
    """Compares probes with those that the operator knows."""

    def __init__(self, prober: Prober, limiter: Limiter, tenant: Callable[[str], Tenant | None]) -> None:
        self._prober = prober
        self._limiter = limiter
        self._tenant = tenant

    async def since(self, known: Mapping[str, str]) -> ProbesAnswer:
        """Return the probes that differ; `known` has their digests by namespace."""
        turns = asyncio.Semaphore(USAGES_AT_ONCE)
        tasks = {}
        for number, namespace in enumerate(known, 1):
            tasks[namespace] = asyncio.create_task(self._probe(namespace, turns))
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
        if tasks:
            _, late = await asyncio.wait(tasks.values(), timeout=SECONDS)
            for task in late:  # nothing is said of them: what is known stays
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        changed: dict[str, TenantProbe | None] = {}
        for number, (namespace, task) in enumerate(tasks.items(), 1):
            if not task.cancelled():
                found = task.result()
                if known[namespace] != ("" if found is None else digest(found)) or found is None:
                    changed[namespace] = found
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
        return ProbesAnswer(changed=changed)

    async def _probe(self, namespace: str, turns: asyncio.Semaphore) -> TenantProbe | None:
        tenant = self._tenant(namespace)
        if tenant is None:
            return None

        async def usage() -> object:
            async with turns:
                return await self._limiter.usage(tenant.terms, tenant.levels)

        probe, used = await asyncio.gather(self._prober.probe(tenant), usage())
        return msgspec.structs.replace(probe, usage=used)
