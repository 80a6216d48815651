"""An answer under way, and those who read it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from assistant_api.conversations.turn import Reader, Turn


def turn(*parts: str) -> Turn:
    made = Turn(uuid4(), uuid4())
    for part in parts:
        made.add(part)
    return made


async def read(reader: Reader) -> str:
    """All that comes until the end."""
    found = []
    while words := await reader.more():
        found.append(words)
    return "".join(found)


@pytest.mark.parametrize("after", range(9))
async def test_a_reader_gets_every_character_after_its_place_once(after: int) -> None:
    """Wherever the pieces end, and whether they were there before or come while it reads."""
    running = turn("ab", "cd")
    reader = Reader(running, after)
    reading = asyncio.create_task(read(reader))
    await asyncio.sleep(0)
    for part in ("e", "fgh"):
        running.add(part)
        await asyncio.sleep(0)
    running.end()
    assert await reading == "abcdefgh"[after:]
    assert reader.place == 8


async def test_readers_do_not_take_words_from_each_other() -> None:
    """Each has a place of its own."""
    running = turn("one ", "two")
    running.end()
    assert [await read(Reader(running, 0)) for _ in range(2)] == ["one two"] * 2


async def test_a_place_beyond_the_end_has_nothing() -> None:
    """As after a crash that took the last words along."""
    running = turn("short")
    running.end()
    assert await read(Reader(running, 100)) == ""


async def test_a_reader_that_gave_up_waiting_misses_nothing() -> None:
    """It waits again, as between two signs of life."""
    running = turn()
    reader = Reader(running, 0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await reader.more()
    running.add("late")
    assert await reader.more() == "late"
