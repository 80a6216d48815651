"""Connections that come together are taken in over many rounds of the event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

from assistant_gateway.capacity import listening
from assistant_gateway.capacity.listening import AT_ONCE, PacedServer

CLIENTS = 60


class Rounds:
    """Counts rounds of the event loop."""

    def __init__(self) -> None:
        self.number = 0
        self.task = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.number += 1


def listens() -> socket.socket:
    """Return a socket on a free port."""
    return socket.create_server(("127.0.0.1", 0), backlog=128)


async def test_a_crowd_of_connections_is_taken_in_a_few_at_a_time() -> None:
    """In no round more than a few, and in the end all of them."""
    sock, made, rounds = listens(), [], Rounds()
    clients = [socket.create_connection(sock.getsockname()) for _ in range(CLIENTS)]

    def make() -> asyncio.Protocol:
        made.append(rounds.number)
        return asyncio.Protocol()

    server: Any = make
    paced = PacedServer(sock, server, 128)
    async with asyncio.timeout(30):
        while len(made) < CLIENTS:  # noqa: ASYNC110  # round by round
            await asyncio.sleep(0)
    rounds.task.cancel()
    paced.close()
    for client in clients:
        client.close()
    assert max(made.count(number) for number in made) <= AT_ONCE
    assert paced.sockets == ()


async def test_no_connection_is_taken_in_once_it_is_closed() -> None:
    """Whoever connects hears at once that nobody listens."""
    sock = listens()
    address = sock.getsockname()
    server: Any = asyncio.Protocol
    paced = PacedServer(sock, server, 128)
    paced.close()
    paced.close()
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return
    raise AssertionError("somebody listens")


async def test_without_room_for_files_it_waits_instead_of_spinning() -> None:
    """And takes connections in again when there is room."""
    before, listening.PAUSE_SECONDS = listening.PAUSE_SECONDS, 0.01
    tries = 0

    class Full(socket.socket):
        def accept(self) -> Any:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise OSError(errno.EMFILE, "too many open files")
            return super().accept()

    full = Full()
    full.bind(("127.0.0.1", 0))
    full.listen()
    made = asyncio.Event()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set()
            transport.close()

    server: Any = Protocol
    paced = PacedServer(full, server, 128)
    try:
        with socket.create_connection(full.getsockname()):
            async with asyncio.timeout(30):
                await made.wait()
    finally:
        listening.PAUSE_SECONDS = before
        paced.close()
    assert tries >= 3
