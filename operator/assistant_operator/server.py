"""Probes and metrics over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from assistant_observability import metrics


async def serve(port: int, alive: Callable[[], str], ready: Callable[[], str]) -> web.AppRunner:
    """Serve until the returned runner is cleaned up; `alive` and `ready` return what is wrong, or nothing."""

    def probe(question: Callable[[], str]) -> Callable[[web.Request], web.Response]:
        def answer(_request: web.Request) -> web.Response:
            problem = question()
            return web.Response(text=problem or "ok", status=503 if problem else 200)

        return answer

    def exposition(_request: web.Request) -> web.Response:
        body, content_type = metrics.exposition(metrics.OPERATOR)
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    for path, handler in (("/livez", probe(alive)), ("/readyz", probe(ready)), ("/metrics", exposition)):
        app.router.add_get(path, _asynchronous(handler))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port, reuse_address=True).start()
    return runner


def _asynchronous(handler: Callable[[web.Request], web.Response]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return handler(request)

    return handle
