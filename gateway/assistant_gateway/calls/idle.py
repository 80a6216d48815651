"""Notices that an answer does not move any more: its provider is silent, or its client does not read."""

from __future__ import annotations

import asyncio
import math

from aiohttp import web

from assistant_http.response import Response

END_SECONDS = 1.0


class DeadlineError(TimeoutError):
    """The request has taken as long as it may in all."""


class IdleWatch:
    """One timer per answer: notices that nothing has moved for too long, at next to no cost per event."""

    def __init__(self, response: Response, request: web.Request, seconds: float, deadline: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._response = response
        self._request = request
        self._seconds = seconds
        self._deadline = deadline
        self._moved = self._loop.time()
        self._timer = self._loop.call_at(min(self._moved + seconds, deadline), self._look)
        self.writing = False  # whether it is the client's turn to move

    def moved(self) -> None:
        """Note that something came or went."""
        self._moved = self._loop.time()

    def hurry(self) -> None:
        """Wait for the end of the answer only, not for more of it."""
        self._timer.cancel()
        self._seconds = END_SECONDS
        self._timer = self._loop.call_later(END_SECONDS, self._look)

    def stop(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _look(self) -> None:
        now, idle = self._loop.time(), self._moved + self._seconds
        if now >= self._deadline:
            self._deadline = math.inf
            self._response.fail(DeadlineError())
        if now < idle:
            self._timer = self._loop.call_at(min(idle, self._deadline), self._look)
        elif self.writing and self._request.transport is not None:
            self._request.transport.abort()  # a client that does not read is a client that is gone
        else:
            self._response.fail(TimeoutError())
