"""A way from the operator to the API server that can be made bad: refused, writes answered 500, watches falsified."""

import base64
import contextlib
import json
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "keep-alive"}


@dataclass
class FaultProxy:
    """Forwards requests with the rights of the kubeconfig it was given; what it does besides can be set at any time."""

    source: Path
    refuse: bool = False  # connections are cut before an answer
    fail_writes: bool = False  # writes are answered 500, and do not reach the server
    silent: bool = False  # watches bring nothing
    lose: tuple[str, str] = ("", "")  # plural of the kind, and name: events of it are swallowed
    expire: bool = False  # watches end with 410 at their next event
    lost: int = 0
    failed: int = 0
    url: str = ""
    _ssl: ssl.SSLContext | None = None
    _server: str = ""

    @contextlib.asynccontextmanager
    async def serve(self, kubeconfig: Path):
        config = yaml.safe_load(self.source.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._ssl = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]) + b"\n")
            pair.flush()
            self._ssl.load_cert_chain(pair.name)
        app = web.Application(client_max_size=8 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._forward)
        runner = web.AppRunner(app, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        config["clusters"][0]["cluster"] = {"server": self.url}
        config["users"][0]["user"] = {"token": "of-nobody"}
        kubeconfig.write_text(yaml.safe_dump(config))  # noqa: ASYNC240 - once, before anything runs
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._ssl, limit=0), skip_auto_headers={"Content-Type"}
        )
        try:
            yield self
        finally:
            await self._session.close()
            await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            self.failed += 1
            request.transport.abort()
            return web.Response(status=503)
        if self.fail_writes and request.method != "GET":
            self.failed += 1
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "message": "no quorum"}
            return web.json_response(status, status=500)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP | {"authorization"}}
        content = await request.read()
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method, self._server + request.raw_path, data=content or None, headers=headers, timeout=timeout
        ) as answer:
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
            if request.query.get("watch") not in {"1", "true"}:
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for line in answer.content:
                if self.refuse:
                    request.transport.abort()
                    return response
                if self.expire:
                    self.expire = False
                    gone = {
                        "kind": "Status",
                        "apiVersion": "v1",
                        "code": 410,
                        "reason": "Expired",
                        "message": "too old",
                    }
                    self.lost += 1
                    await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                    return response
                if not self.silent and not self._is_lost(request.path.rsplit("/", 1)[1], line):
                    await response.write(line)
            return response

    def _is_lost(self, plural: str, line: bytes) -> bool:
        if plural != self.lose[0] or json.loads(line)["object"].get("metadata", {}).get("name") != self.lose[1]:
            return False
        self.lost += 1
        return True
