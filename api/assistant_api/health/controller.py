"""`/health…` for people and monitors, `/livez` and `/readyz` for the kubelet and the operator."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.enums import MediaType
from litestar.params import FromPath

from assistant_api.errors import NOT_FOUND, ApiError
from assistant_api.health.schemas import Basic, Check, Detailed
from assistant_api.health.service import Health
from assistant_crds.contracts import Readiness


class HealthController(Controller):
    """Open to every caller: no answer holds an address, a credential or a tenant's data."""

    tags = ["Health"]

    @get("/livez", media_type=MediaType.TEXT, summary="Alive", sync_to_thread=False)
    def livez(self) -> str:
        """Answer as long as the event loop turns."""
        return "ok"

    @get("/readyz", summary="Ready, and with which configuration", sync_to_thread=False)
    def readyz(self, health: NamedDependency[Health]) -> Response[Readiness]:
        """Return 200 when requests should come here, otherwise 503; `checks` says what is missing."""
        readiness = health.readiness()
        return Response(readiness, status_code=200 if readiness.status == "ready" else 503)

    @get("/health", summary="State of the process", sync_to_thread=False)
    def basic(self, health: NamedDependency[Health]) -> Response[Basic]:
        """Return the state of this process; nothing outside is asked."""
        basic = health.basic()
        return Response(basic, status_code=503 if basic.status == "unhealthy" else 200)

    @get("/health/detailed", summary="State of every dependency")
    async def detailed(self, health: NamedDependency[Health]) -> Response[Detailed]:
        """Ask every dependency; 503 when no question can be answered at all."""
        detailed = await health.detailed()
        return Response(detailed, status_code=503 if detailed.status == "unhealthy" else 200)

    @get("/health/{dependency:str}", summary="State of one dependency")
    async def dependency(self, health: NamedDependency[Health], dependency: FromPath[str]) -> Response[Check]:
        """Ask one of `postgres`, `redis`, `weaviate`, `gateway`."""
        if dependency not in health.dependencies:
            raise ApiError(NOT_FOUND)
        check = await health.check(dependency)
        return Response(check, status_code=200 if check.status == "healthy" else 503)
