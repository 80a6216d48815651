"""An answer under way, as it is in the memory of a process: its text so far, and who waits for more of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from assistant_api.errors import ApiError


@dataclass
class Turn:
    """An answer that is being written here, or that another process writes and this one follows."""

    conversation: UUID
    id: UUID
    length: int = 0  # characters so far
    ended: bool = False  # and saved
    interrupt: Callable[[], None] | None = None  # of one that is written here
    error: ApiError | None = None  # why it failed, where this process knows it
    parts: list[str] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, text: str) -> None:
        """Take the next characters."""
        self.parts.append(text)
        self.length += len(text)
        self._wake()

    def end(self) -> None:
        """Nothing comes any more."""
        self.ended = True
        self._wake()

    def give_up(self) -> None:
        """End it, or only what is read of it here, because this process has to end."""
        (self.interrupt or self.end)()

    async def finished(self) -> None:
        """Wait for the end."""
        while not self.ended:
            await self._news.wait()

    async def more(self, seen: int) -> None:
        """Wait until there are more than `seen` characters, or the end is there."""
        while self.length <= seen and not self.ended:
            await self._news.wait()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Reader:
    """Reads the text of a turn once, from the character `after` on; every reader has a place of its own."""

    def __init__(self, turn: Turn, after: int) -> None:
        self.turn = turn
        self.place = after
        self._part = 0  # the first that was not looked at
        self._start = 0  # its place

    async def more(self) -> str:
        """Return the next characters, as many as there are; "" at the end."""
        await self.turn.more(self.place)
        parts = self.turn.parts[self._part :]
        found = "".join(parts)
        fresh = found[max(0, self.place - self._start) :]
        self._part += len(parts)
        self._start += len(found)
        self.place += len(fresh)
        return fresh
