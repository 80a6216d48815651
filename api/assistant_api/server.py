"""Run ASGI applications under uvicorn inside our own event loop: two ports, one process, one way to stop.

SIGTERM: readiness goes off at once, connections are taken for a moment longer (Endpoints change later than the
signal comes), then running answers may finish, and what still runs after that is ended with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass

import uvicorn
from litestar.types import ASGIApp, Receive, Scope, Send

from assistant_api.direct_write import DirectWriteProtocol
from assistant_observability import logs, metrics

CLOSE_TIMEOUT_SECONDS = 2  # for the errors with which requests end that took too long
KEEPALIVE_TIMEOUT_SECONDS = 75  # longer than OpenAI's client keeps a connection idle

_log = logs.logger(__name__)


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Install nothing."""
        yield


def server(app: ASGIApp, host: str, port: int, shutdown_seconds: float, *, lifespan: bool) -> Server:
    """Return a server for `app`; running requests get `shutdown_seconds` once it is told to stop."""
    logging.getLogger("uvicorn.error").addFilter(_is_logged)
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="none",
            http=DirectWriteProtocol,
            ws="none",
            lifespan="on" if lifespan else "off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEPALIVE_TIMEOUT_SECONDS,
            timeout_graceful_shutdown=math.ceil(shutdown_seconds) + CLOSE_TIMEOUT_SECONDS,
        )
    )


@dataclass(frozen=True, slots=True)
class Shutdown:
    """How a process goes down: `drain` when the signal comes, `interrupt` when answers have had their time."""

    drain: Callable[[], None]
    interrupt: Callable[[], None]
    drain_seconds: float
    shutdown_seconds: float


async def until_stopped(main: Server, side: Server, ending: Shutdown) -> None:
    """Serve both until SIGTERM or SIGINT, then stop `main` gracefully and `side` last.

    A second signal stops at once.
    """
    loop = asyncio.get_running_loop()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            main.force_exit = main.should_exit = True
            return
        stopping = True
        _log.info("stopping")
        ending.drain()
        loop.call_later(ending.drain_seconds, setattr, main, "should_exit", True)
        loop.call_later(ending.drain_seconds + ending.shutdown_seconds, ending.interrupt)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    beside = asyncio.create_task(side.serve())
    try:
        await main.serve()
    finally:
        side.should_exit = True
        await asyncio.gather(beside, return_exceptions=True)


def _is_logged(record: logging.LogRecord) -> bool:
    """Keep out what any client can cause at will: what is not HTTP is answered 400, which is enough."""
    return record.getMessage() != "Invalid HTTP request received."


class MetricsApp:
    """`/metrics` and `/livez` on a port that no tenant's client reaches; also used by the worker.

    `part` says whose metrics, `alive` is asked for `/livez`.
    """

    def __init__(self, part: metrics.Part, alive: Callable[[], bool] = lambda: True) -> None:
        self._part = part
        self._alive = alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive
        path = scope["path"]
        if path == "/metrics":
            content, media_type = metrics.exposition(self._part)
            await _send(send, 200, content, media_type)
        elif path == "/livez":
            alive = self._alive()
            await _send(send, 200 if alive else 503, b"ok" if alive else b"not alive", "text/plain")
        else:
            await _send(send, 404, b"not found", "text/plain")


async def _send(send: Send, status: int, content: bytes, media_type: str) -> None:
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})
