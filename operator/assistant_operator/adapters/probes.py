"""HTTP questions to the gateway and to tenants' pods."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import msgspec

from assistant_crds.contracts import ProbesAnswer, ProbesQuestion, Readiness, TenantProbe, digest, encode
from assistant_observability import traces
from assistant_operator.desired.deployment import API_PORT
from assistant_operator.errors import ProbeError

# The gateway asks providers with 5 seconds of patience before it answers.
GATEWAY_SECONDS = 8.0
POD_SECONDS = 2.0
MAX_BODY = 1 << 20
MAX_ANSWERS = 64 << 20  # of all tenants together, when all is new


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
        self._waiting: dict[str, asyncio.Future[TenantProbe | None]] = {}
        self._sending: asyncio.Task[None] | None = None
        self._known: dict[str, tuple[str, TenantProbe | None]] = {}  # by namespace: digest, and what it is of

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def gateway(self, namespace: str) -> TenantProbe | None:
        """Return the gateway's view of a tenant, None when it knows no such tenant; raises ProbeError.

        Questions of one moment go out together, and the answer tells only what is new.
        """
        waiting = self._waiting.get(namespace)
        if waiting is None:
            waiting = self._waiting[namespace] = asyncio.get_running_loop().create_future()
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        # One that asks and goes away must not end the answer for the others.
        return await asyncio.shield(waiting)

    async def _send(self) -> None:
        """Ask for everything that is waited for, and give each who waits its answer."""
        await asyncio.sleep(0)
        waiting, self._waiting, self._sending = self._waiting, {}, None
        try:
            found = await self._answers(list(waiting))
        except ProbeError as error:
            for future in waiting.values():
                future.set_exception(error)
                future.exception()  # who asked may be gone
            return
        except BaseException:
            for future in waiting.values():
                future.cancel()
            raise
        for namespace, future in waiting.items():
            future.set_result(found.get(namespace))

    async def _answers(self, namespaces: list[str]) -> dict[str, TenantProbe | None]:
        if len(namespaces) == 1:
            return {namespaces[0]: await self._one(namespaces[0])}
        question = ProbesQuestion(known={name: self._known.get(name, ("", None))[0] for name in namespaces})
        url = f"{self._gateway_url}/internal/v1/probes"
        status, body = await self._get(url, GATEWAY_SECONDS, await self._token(), encode(question))
        if status in {404, 405}:  # a gateway that is older than this operator, during an upgrade
            return dict(zip(namespaces, await asyncio.gather(*map(self._one, namespaces)), strict=True))
        if status != 200:
            raise ProbeError(f"it answered with status {status}.")
        try:
            changed = msgspec.json.decode(body, type=ProbesAnswer).changed
        except msgspec.DecodeError as error:
            raise ProbeError("its answer is not understood.") from error
        for name, probe in changed.items():
            self._known[name] = ("", None) if probe is None else (digest(probe), probe)
        if len(self._known) > 2 * len(namespaces) + 100:  # most of them are gone
            self._known = {name: self._known[name] for name in namespaces if name in self._known}
        return {name: self._known.get(name, ("", None))[1] for name in namespaces}

    async def _one(self, namespace: str) -> TenantProbe | None:
        url = f"{self._gateway_url}/internal/v1/tenants/{namespace}/probe"
        status, body = await self._get(url, GATEWAY_SECONDS, await self._token())
        if status == 404:
            return None
        if status != 200:
            raise ProbeError(f"it answered with status {status}.")
        try:
            return msgspec.json.decode(body, type=TenantProbe)
        except msgspec.DecodeError as error:
            raise ProbeError("its answer is not understood.") from error

    async def _token(self) -> dict[str, str]:
        try:
            # Read each time: the kubelet replaces the token before it ends.
            token = (await asyncio.to_thread(self._token_file.read_text)).strip()
        except OSError as error:
            raise ProbeError("the operator has no token for it.") from error
        return {"Authorization": f"Bearer {token}"}

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

    async def _get(
        self, url: str, seconds: float, headers: dict[str, str], body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Return status and body of an answer; with a body the question is a POST."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100))
        traces.inject(headers)
        method, most = ("GET", MAX_BODY) if body is None else ("POST", MAX_ANSWERS)
        try:
            timeout = aiohttp.ClientTimeout(total=seconds)
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return response.status, await _read(response, most)
        except TimeoutError as error:
            raise ProbeError(f"no answer within {seconds:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProbeError(f"no connection ({type(error).__name__}).") from error


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    body = b""
    while len(body) < most and (chunk := await response.content.read(most - len(body))):
        body += chunk
    return body
