"""The side of the gateway that the cluster sees: probes and metrics, on a port of their own."""

from __future__ import annotations

from aiohttp import web

from assistant_crds.contracts import Readiness, encode
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.tenants.identity import SigningKeys
from assistant_gateway.tenants.policies import Policies
from assistant_observability import metrics


class Operations:
    """`/livez`, `/readyz`, `/metrics`."""

    def __init__(self, keys: SigningKeys, policies: Policies, limiter: Limiter) -> None:
        self._keys = keys
        self._policies = policies
        self._limiter = limiter
        self.draining = False
        self.application = web.Application()
        self.application.router.add_get("/livez", self.livez)
        self.application.router.add_get("/readyz", self.readyz)
        self.application.router.add_get("/metrics", self.metrics)

    async def livez(self, _request: web.Request) -> web.Response:
        """Answer at all: the loop turns."""
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        """Say whether requests can be served: tokens can be checked and policies are known.

        Redis is not asked for: without it limits are local, which is better than no answer.
        """
        needed = {
            "signing_keys": "ok" if self._keys.loaded else "not loaded",
            "policies": "ok" if self._policies.loaded else "not loaded",
            "shutdown": "draining" if self.draining else "ok",
        }
        ready = all(state == "ok" for state in needed.values())
        checks = {**needed, "redis": "away: limits are local" if self._limiter.degraded else "ok"}
        body = Readiness(status="ready" if ready else "not_ready", config_generation="", checks=checks)
        return web.Response(status=200 if ready else 503, body=encode(body), content_type="application/json")

    async def metrics(self, _request: web.Request) -> web.Response:
        """Return the process's metrics."""
        body, content_type = metrics.exposition(metrics.GATEWAY)
        return web.Response(body=body, headers={"Content-Type": content_type})
