"""What the gateway asks of a cluster, and nothing else: keys, and the policies of its routes' namespace.

Identity and policies are tested against a real API server elsewhere (`tests/integration/gateway`); for clients one
would only make the start longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from gateway_world import ROUTES, policy_secret

from assistant_crds import contracts, naming
from assistant_crds.contracts import TenantPolicy

ISSUER = "https://kubernetes.default.svc"
KEY_ID = "1"
TOKEN_SECONDS = 3600


class SigningCluster:
    """Signs ServiceAccount tokens, and serves the keys and one policy, which does not change."""

    def __init__(self, folder: Path, policy: TenantPolicy) -> None:
        self.credentials = folder
        self.url = ""
        self._key = ec.generate_private_key(ec.SECP256R1())
        sealed = contracts.seal(policy)
        self._secret = policy_secret(sealed.tenant.key, contracts.encode(sealed))
        folder.mkdir(parents=True)
        (folder / "token").write_text("the gateway's own")

    def token(self, namespace: str) -> str:
        """Return a token as the kubelet would project it."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": [naming.GATEWAY_AUDIENCE],
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "sub": f"system:serviceaccount:{namespace}:{naming.API}",
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": naming.API, "uid": "u"}},
        }
        return jwt.encode(claims, self._key, "ES256", {"kid": KEY_ID})

    @contextlib.contextmanager
    def running(self) -> Iterator[SigningCluster]:
        """Serve in a thread."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        runner = asyncio.run_coroutine_threadsafe(self._start(), loop).result(30)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/openid/v1/jwks", self._keys)
        app.router.add_get(f"/api/v1/namespaces/{ROUTES}/secrets", self._secrets)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response({"issuer": ISSUER})

    async def _keys(self, _request: web.Request) -> web.Response:
        public: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        return web.json_response({"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "ES256"}]})

    async def _secrets(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            answer = web.StreamResponse(headers={"content-type": "application/json"})
            await answer.prepare(request)
            await asyncio.sleep(float(request.query["timeoutSeconds"]))
            return answer
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [self._secret]})
