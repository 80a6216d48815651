"""Whose connections there are, and which of them are too many.

A connection takes memory whether anything is asked on it or not. Who opens them is known once a request on them has
proved it: from then on each counts as its tenant's. One tenant keeps so many idle ones, one address so many on which
nothing has been proved yet, and those not for long: a client that sends a head a byte at a time is none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from aiohttp.web_protocol import RequestHandler

from assistant_gateway.capacity.fairness import STRANGER

SWEEP_SECONDS = 1.0
IDLE_OF_A_TENANT = 256  # beyond, those that have been idle longest are closed: 15 KB each
UNPROVEN_OF_AN_ADDRESS = 1024
UNPROVEN_SECONDS = 20.0


class Connections:
    """What is known of each connection."""

    def __init__(self) -> None:
        self.busy: set[RequestHandler] = set()  # with a request in work
        self._owners: dict[RequestHandler, str] = {}
        self._idle_since: dict[RequestHandler, float] = {}

    def owner(self, connection: RequestHandler) -> str:
        """Return the tenant who has asked on it before, or else where it comes from."""
        return self._owners.get(connection) or f"{STRANGER}{_address(connection)}"

    def proved(self, connection: RequestHandler, tenant: str) -> None:
        """Note whose it is."""
        self._owners[connection] = tenant

    def surplus(self, connections: Iterable[RequestHandler], now: float) -> list[RequestHandler]:
        """Return those to close, of all that there are.

        Args:
            connections: of the server.
            now: seconds on any clock.
        """
        there = list(connections)
        for gone in (self._owners.keys() | self._idle_since.keys()) - set(there):
            self._owners.pop(gone, None)
            self._idle_since.pop(gone, None)
        found: list[RequestHandler] = []
        idle, unproven = defaultdict(list), defaultdict(list)
        for connection in there:
            if connection in self.busy:
                self._idle_since.pop(connection, None)
                continue
            since = self._idle_since.setdefault(connection, now)
            if (owner := self._owners.get(connection)) is not None:
                idle[owner].append(connection)
            elif now - since >= UNPROVEN_SECONDS:
                found.append(connection)
            else:
                unproven[_address(connection)].append(connection)
        for most, groups in ((IDLE_OF_A_TENANT, idle), (UNPROVEN_OF_AN_ADDRESS, unproven)):
            for group in groups.values():
                if len(group) > most:
                    group.sort(key=self._idle_since.__getitem__)
                    found += group[: len(group) - most]
        return found


def _address(connection: RequestHandler) -> str:
    peer = connection.peername
    return str(peer[0]) if isinstance(peer, tuple) else str(peer)
