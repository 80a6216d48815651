"""A tenant of a running gateway: its policy, its requests, its books."""

from __future__ import annotations

import asyncio
from typing import Any

import yaml
from gateway_world import PLATFORM, Cluster, Running, policy
from redis.asyncio import Redis as Client

from assistant_crds import naming
from assistant_gateway.ledger.entry import LedgerEntry, decode_entry
from assistant_gateway.limits.redis import UnavailableError


class Tenant:
    """A tenant of a gateway, and its books."""

    def __init__(self, cluster: Cluster, gateway: Running, namespace: str) -> None:
        self.cluster, self.gateway, self.namespace = cluster, gateway, namespace
        self.key = naming.tenant_key(namespace)

    async def put(self, models: list[str] = [], **changes: Any) -> None:  # noqa: B006
        """Write a policy and wait until the gateway follows it."""
        sealed = self.cluster.put_policy(policy(self.namespace, models, **changes))
        async with asyncio.timeout(30):
            while (await self.probe()).get("generation") != sealed.generation:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def probe(self) -> dict[str, Any]:
        """Return what the operator is told."""
        headers = {"Authorization": f"Bearer {self.cluster.token(PLATFORM, naming.MANAGED_BY)}"}
        url = f"{self.gateway.url}/internal/v1/tenants/{self.namespace}/probe"
        async with self.gateway.client.get(url, headers=headers) as answer:
            return await answer.json()

    def ask(self, model: str, where: Running | None = None, path: str = "chat/completions", **fields: Any):
        """Send a request; leave with `async with`."""
        headers = {"Authorization": f"Bearer {self.cluster.token(self.namespace)}"} | fields.pop("headers", {})
        content = {} if path == "embeddings" else {"messages": [{"role": "user", "content": "Hi"}]}
        to = where or self.gateway
        return to.client.post(f"{to.url}/v1/{path}", json={"model": model, **content, **fields}, headers=headers)

    async def code(self, model: str, **fields: Any) -> tuple[int, str | None]:
        """Send a request; return its status and its error's code."""
        async with self.ask(model, **fields) as answer:
            body = await answer.read()
            return answer.status, None if answer.status == 200 else yaml.safe_load(body)["error"]["code"]

    async def entries(self, count: int) -> list[LedgerEntry]:
        """Return the ledger when it has so many entries; nothing is held any more then."""
        async with Client.from_url(self.gateway.settings.redis_url, protocol=2, driver_info=None) as redis:
            async with asyncio.timeout(30):
                while await redis.xlen(f"quota:{{{self.key}}}:ledger") < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            found = await redis.xrange(f"quota:{{{self.key}}}:ledger")
        return [decode_entry(fields[b"entry"]) for _, fields in found]

    async def held(self) -> int:
        """Return the tokens that calls hold now; asks again when a busy machine lets Redis be late for the gateway."""
        limiter = self.gateway.server._limiter
        terms = self.gateway.server._gateway._policies.get(self.namespace).terms
        async with asyncio.timeout(30):
            while True:
                try:
                    return (await limiter._quota.usage(terms.limits))["tenant"].held_tokens
                except UnavailableError:
                    await asyncio.sleep(0.1)
