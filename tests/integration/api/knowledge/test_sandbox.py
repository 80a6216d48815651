"""The parser's process as the worker uses it: real processes, hostile documents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fpdf import FPDF

from assistant_api.knowledge import media, sandbox
from assistant_api.knowledge.parser import Parsed, ParseFailed, ParseRequest
from assistant_api.knowledge.sandbox import Sandbox


def request(content: bytes, media_type: str = media.TEXT) -> ParseRequest:
    return ParseRequest(media_type, len(content), 60, 0)


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  there is nothing else to wait for
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def parts(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1 << 20):
        yield content[start : start + (1 << 20)]


def bomb(megabytes: int) -> bytes:
    """A small PDF whose only page unpacks to `megabytes` of drawing instructions."""
    line = b"BT /F1 1 Tf 1 0 0 1 10 10 Tm (all work and no play) Tj ET\n"
    packed = zlib.compress(line * (megabytes * (1 << 20) // len(line)), 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n" % len(packed) + packed + b"\nendstream",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body = b"%PDF-1.4\n" + b"".join(b"%d 0 obj%s endobj\n" % (number, each) for number, each in enumerate(objects, 1))
    return body + b"trailer<</Root 1 0 R/Size 6>>\n%%EOF"


@contextlib.asynccontextmanager
async def running(
    seconds: float = 30.0, memory: int = sandbox.MAX_MEMORY_BYTES
) -> AsyncIterator[tuple[Sandbox, list[int]]]:
    started: list[int] = []
    box = Sandbox(memory=memory, seconds=seconds, processes=1, started=started.append)
    try:
        yield box, started
    finally:
        await box.close()


async def test_documents_are_read_in_one_process_after_another() -> None:
    """A process serves many documents, and says pages and chunks of each."""
    document = FPDF()
    document.set_font("Helvetica", size=11)
    for text in ("First page.", "Second page."):
        document.add_page()
        document.cell(text=text)
    content = bytes(document.output())
    async with running() as (box, started):
        first = await box.parse(request(b"Plain text."), parts(b"Plain text."))
        second = await box.parse(request(content, media.PDF), parts(content))
    assert isinstance(first, Parsed)
    assert isinstance(second, Parsed)
    assert [piece.text for piece in first.chunks] == ["Plain text."]
    assert (second.pages, [(piece.page, piece.text) for piece in second.chunks]) == (
        2,
        [(1, "First page."), (2, "Second page.")],
    )
    assert len(started) == 1


async def test_a_refused_document_leaves_the_process_in_use() -> None:
    """A document that cannot be read is an answer, not a failure."""
    async with running() as (box, started):
        assert await box.parse(request(b" "), parts(b" ")) == ParseFailed(
            "document_has_no_text", "The document holds no text."
        )
        assert isinstance(await box.parse(request(b"x"), parts(b"x")), Parsed)
    assert len(started) == 1


async def test_a_crash_is_told_and_the_next_document_is_read() -> None:
    """When the parser dies, its document fails and nobody else's."""
    async with running() as (box, started):
        task = asyncio.create_task(box.parse(request(b"x" * 9), never_ending(b"x")))
        await until(lambda: bool(started))
        os.kill(started[0], signal.SIGSEGV)
        assert await asyncio.wait_for(task, 10) == sandbox.CRASHED
        assert isinstance(await box.parse(request(b"y"), parts(b"y")), Parsed)
    assert len(started) == 2


async def never_ending(content: bytes) -> AsyncIterator[bytes]:
    """One part, and then for a while nothing but trickles that never add up."""
    yield content
    for _ in range(8):
        await asyncio.sleep(0.2)
        yield b"x"


async def test_a_document_that_takes_too_long_is_ended() -> None:
    """An endless loop costs its document, and its process."""
    async with running(seconds=0.5) as (box, started):
        slow = b"*a_" * 4_000_000
        assert await box.parse(request(slow, media.MARKDOWN), parts(slow)) == sandbox.TIMED_OUT
        assert not alive(started[0])


async def test_a_bomb_is_ended_by_the_memory_limit() -> None:
    """A PDF of a few kilobytes that unpacks to more than it may fails, and takes nothing else with it."""
    content = bomb(250)
    assert len(content) < 1_000_000
    async with running(seconds=60, memory=200 << 20) as (box, _):
        result = await box.parse(request(content, media.PDF), parts(content))
        assert isinstance(result, ParseFailed)
        assert isinstance(await box.parse(request(b"y"), parts(b"y")), Parsed)


async def test_a_caller_that_gives_up_leaves_no_process_behind() -> None:
    """A document that was deleted meanwhile is not parsed to its end."""
    async with running() as (box, started):
        task = asyncio.create_task(box.parse(request(b"x" * 9), never_ending(b"x")))
        await until(lambda: bool(started))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not alive(started[0])


async def test_an_error_while_the_content_is_read_goes_to_the_caller() -> None:
    """The database's failure is not the document's."""

    async def broken(error: Exception) -> AsyncIterator[bytes]:
        yield b"x"
        raise error

    async with running() as (box, _):
        for error in (ConnectionResetError("database"), TimeoutError("database")):
            with pytest.raises(type(error), match="database"):
                await box.parse(request(b"xx"), broken(error))


async def test_idle_processes_end() -> None:
    """Between documents a parser costs no memory."""
    started: list[int] = []
    box = Sandbox(idle_seconds=0.1, started=started.append)
    assert isinstance(await box.parse(request(b"x"), parts(b"x")), Parsed)
    assert alive(started[0])
    await until(lambda: not alive(started[0]))
    assert isinstance(await box.parse(request(b"y"), parts(b"y")), Parsed)
    assert len(started) == 2
    await box.close()


async def test_the_process_is_given_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser's environment holds nothing of ours."""
    monkeypatch.setenv("API_POSTGRES_DSN", "postgresql://secret")
    async with running() as (box, started):
        await box.parse(request(b"x"), parts(b"x"))
        environment = Path(f"/proc/{started[0]}/environ").read_bytes()  # noqa: ASYNC240
    assert b"secret" not in environment
