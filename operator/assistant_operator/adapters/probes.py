"""HTTP questions to the gateway and to tenants' pods."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import msgspec

from assistant_crds.contracts import Readiness, TenantProbe
from assistant_observability import traces
from assistant_operator.desired.deployment import API_PORT
from assistant_operator.errors import ProbeError

# The gateway asks providers with 5 seconds of patience before it answers.
GATEWAY_SECONDS = 8.0
POD_SECONDS = 2.0
MAX_BODY = 1 << 20


class Probes:
    """Asks whether things work, with a time-out for each question.

    Args:
        gateway_url: the gateway, without a path.
        token_file: holds the token that it knows the operator by.
        pod_port: the port of the tenants' API.
        services: whether the addresses of Services can be reached; by default where the pods have their usual port.
    """

    def __init__(self, gateway_url: str, token_file: Path, pod_port: int, *, services: bool | None = None) -> None:
        self._services = pod_port == API_PORT if services is None else services
        self._gateway_url = gateway_url.rstrip("/")
        self._token_file = token_file
        self._pod_port = pod_port
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def gateway(self, namespace: str) -> TenantProbe | None:
        """Return the gateway's view of a tenant, None when it knows no such tenant; raises ProbeError."""
        try:
            # Read each time: the kubelet replaces the token before it ends.
            token = (await asyncio.to_thread(self._token_file.read_text)).strip()
        except OSError as error:
            raise ProbeError("the operator has no token for it.") from error
        url = f"{self._gateway_url}/internal/v1/tenants/{namespace}/probe"
        status, body = await self._get(url, GATEWAY_SECONDS, {"Authorization": f"Bearer {token}"})
        if status == 404:
            return None
        if status != 200:
            raise ProbeError(f"it answered with status {status}.")
        try:
            return msgspec.json.decode(body, type=TenantProbe)
        except msgspec.DecodeError as error:
            raise ProbeError("its answer is not understood.") from error

    async def pod(self, address: str) -> Readiness:
        """Return what a pod says to `/readyz`, ready or not; raises ProbeError when it says nothing."""
        host = f"[{address}]" if ":" in address else address
        status, body = await self._get(f"http://{host}:{self._pod_port}/readyz", POD_SECONDS, {})
        try:
            return msgspec.json.decode(body, type=Readiness)
        except msgspec.DecodeError as error:
            raise ProbeError(f"/readyz answered with status {status} and nothing that is understood") from error

    async def service(self, address: str) -> None:
        """Ask `/readyz` of a tenant's API through its Service's address, as clients do.

        Raises:
            ProbeError: there is no answer, or it is not from the tenant's API.
        """
        if self._services:
            await self.pod(address)

    async def _get(self, url: str, seconds: float, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100))
        traces.inject(headers)
        try:
            timeout = aiohttp.ClientTimeout(total=seconds)
            async with self._session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
                return response.status, await response.content.read(MAX_BODY)
        except TimeoutError as error:
            raise ProbeError(f"no answer within {seconds:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProbeError(f"no connection ({type(error).__name__}).") from error
