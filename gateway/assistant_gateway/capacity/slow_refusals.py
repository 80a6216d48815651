"""Refusals come at a pace: whoever is refused again and again hears of it later and later.

A refusal costs nearly as much as an answer and brings its client no closer to one, so a client without patience could
have the gateway do nothing else. A tenant has a rate of refusals. Above it they wait, and with each of them a
connection, on which nothing more is read. Those whose limits serve them never come near.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from assistant_gateway.capacity.fairness import Pace

REFUSALS_A_SECOND, REFUSALS_AT_ONCE = 100.0, 400.0
LONGEST_SECONDS = 5.0
MOST_WAITING = 2000  # of all tenants, at some 20 KB each; what is beyond goes out at once and ends its connection


class SlowRefusals:
    """Knows how often each tenant is refused."""

    def __init__(self) -> None:
        self._pace = Pace(REFUSALS_A_SECOND, REFUSALS_AT_ONCE, LONGEST_SECONDS)
        self.waiting = 0

    def seconds(self, tenant: str) -> float:
        """Note a refusal and return how long it is to wait."""
        return self._pace.take(tenant, 1, asyncio.get_running_loop().time())

    async def wait(self, request: web.Request, answer: web.StreamResponse, tenant: str) -> float:
        """Hold a refusal back as long as it has to wait; return the seconds.

        Nothing of the request is kept meanwhile, and no more of it is read.
        """
        seconds = self.seconds(tenant)
        if not seconds:
            return 0.0
        if self.waiting >= MOST_WAITING:
            answer.force_close()
            return 0.0
        _let_go(request)
        self.waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.waiting -= 1
            if request.transport is not None and not request.content.is_eof():
                request.protocol.resume_reading()
        return seconds


def _let_go(request: web.Request) -> None:
    """Drop what has come of a request, and stop reading until it is answered."""
    request._read_bytes = None  # noqa: SLF001  # where aiohttp keeps a body that was read as a whole
    content = request.content
    if content.is_eof() or content.exception() is not None:
        return
    while content.read_nowait(-1):
        pass
    if request.transport is not None and not content.is_eof():
        request.protocol.pause_reading()
