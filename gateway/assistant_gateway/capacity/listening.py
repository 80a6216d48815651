"""Connections are taken in a few at a time.

An event loop's own server takes all that wait at once. A thousand that come together then cost one round of a quarter
of a second, and each of their steps another, while nobody else is served.
"""

from __future__ import annotations

import asyncio
import errno
import socket

from aiohttp import web

AT_ONCE = 4  # in one round of the event loop: a millisecond of work
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
PAUSE_SECONDS = 0.5  # while there is no room for more


class PacedServer:
    """A listening socket and what is made of its connections."""

    def __init__(self, listening: socket.socket, server: web.Server, backlog: int) -> None:
        """Begin to listen; `server` makes the protocol of each connection."""
        self._loop = asyncio.get_running_loop()
        self._socket = listening
        self._server = server
        self._beginning: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        listening.listen(backlog)
        self._loop.add_reader(listening, self._take)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Where it listens."""
        return () if self._socket.fileno() < 0 else (self._socket,)

    def close(self) -> None:
        """Take no more in; connections that are there stay."""
        if self._pause is not None:
            self._pause.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _take(self) -> None:
        """Take in some of the connections that wait; the next round comes back for the others."""
        for _ in range(AT_ONCE):
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in NO_ROOM:
                    self._loop.remove_reader(self._socket)
                    self._pause = self._loop.call_later(PAUSE_SECONDS, self._loop.add_reader, self._socket, self._take)
                    return
                continue  # it is gone already
            connection.setblocking(False)
            self._beginning.add(task := self._loop.create_task(self._begin(connection)))
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._server, connection)
        except OSError:
            connection.close()


class PacedSite(web.BaseSite):
    """Where a runner's application is served."""

    __slots__ = ("_socket",)

    def __init__(self, runner: web.BaseRunner, listening: socket.socket, *, backlog: int) -> None:
        super().__init__(runner, backlog=backlog)
        self._socket = listening

    @property
    def name(self) -> str:
        """Its address."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Begin to listen."""
        await super().start()
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner is not set up")
        self._server = PacedServer(self._socket, server, self._backlog)  # type: ignore[assignment]  # what is used of it
