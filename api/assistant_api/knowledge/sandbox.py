"""The parser's process as the worker sees it: bounded in time, replaced when it dies, gone when idle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterable, Callable

import msgspec

from assistant_api.knowledge.parser import LENGTH, OUT_OF_MEMORY, Parsed, ParseFailed, ParseRequest
from assistant_observability import logs

MAX_MEMORY_BYTES = 320 * 1024 * 1024
PARSE_TIMEOUT_SECONDS = 120.0
IDLE_TIMEOUT_SECONDS = 20.0
MAX_PROCESSES = 2  # so that one document that takes its whole time does not keep all others waiting

TIMED_OUT = ParseFailed("parser_timed_out", "Reading the document took too long; split it or simplify it.")
CRASHED = ParseFailed("parser_crashed", "Reading the document crashed the parser; it may be damaged.")

_log = logs.logger(__name__)
_decoder: msgspec.msgpack.Decoder[Parsed | ParseFailed] = msgspec.msgpack.Decoder(Parsed | ParseFailed)


class ParserUnavailableError(Exception):
    """No process could be started: out of memory or of process ids."""


class _ProcessDiedError(Exception):
    """The parser ended in the middle of a document."""


class Sandbox:
    """Parses documents in child processes. Safe to use from many tasks at once: the surplus waits."""

    def __init__(
        self,
        memory: int = MAX_MEMORY_BYTES,
        seconds: float = PARSE_TIMEOUT_SECONDS,
        processes: int = MAX_PROCESSES,
        idle_seconds: float = IDLE_TIMEOUT_SECONDS,
        started: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self._memory = memory
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._started = started
        self._free = asyncio.Semaphore(processes)
        self._idle: list[asyncio.subprocess.Process] = []
        self._retirement: asyncio.TimerHandle | None = None

    async def parse(self, request: ParseRequest, content: AsyncIterable[bytes]) -> Parsed | ParseFailed:
        """Return the document's chunks, or why there are none.

        `content` is handed on as it comes, never collected here. Raises whatever it raises, and
        ParserUnavailableError.
        """
        async with self._free:
            process = await self._take()
            whole = False
            try:
                async with asyncio.timeout(self._seconds) as limit:
                    answer = await _ask(process, request, content)
                whole = True
            except TimeoutError:
                if not limit.expired():
                    raise  # of whoever reads the content
                return TIMED_OUT
            except _ProcessDiedError:
                return CRASHED
            finally:
                # Also when the caller gave up: a process in the middle of a document is of no use to the next one.
                if whole and answer != OUT_OF_MEMORY:
                    self._keep(process)
                else:
                    await _kill(process)
            return answer

    async def close(self) -> None:
        """End every idle process; one that is at work ends with its task."""
        if self._retirement is not None:
            self._retirement.cancel()
        await self._end_idle()

    async def _take(self) -> asyncio.subprocess.Process:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
        return await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "assistant_api.knowledge.parser",
                str(self._memory),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # Nothing of ours: settings and tokens are none of a parser's business.
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ},
            )
        except OSError as error:
            raise ParserUnavailableError from error
        self._started(process.pid)
        return process

    def _keep(self, process: asyncio.subprocess.Process) -> None:
        self._idle.append(process)
        if self._retirement is not None:
            self._retirement.cancel()
        loop = asyncio.get_running_loop()
        self._retirement = loop.call_later(self._idle_seconds, lambda: loop.create_task(self._end_idle()))

    async def _end_idle(self) -> None:
        while self._idle:
            await _kill(self._idle.pop())


async def _ask(
    process: asyncio.subprocess.Process, request: ParseRequest, content: AsyncIterable[bytes]
) -> Parsed | ParseFailed:
    header = msgspec.msgpack.encode(request)
    await _send(process, LENGTH.pack(len(header)) + header)
    async for part in content:
        await _send(process, part)
    (size,) = LENGTH.unpack(await _receive(process, LENGTH.size))
    return _decoder.decode(await _receive(process, size))


async def _send(process: asyncio.subprocess.Process, message: bytes) -> None:
    if process.stdin is None:
        raise RuntimeError("the process was started without pipes")
    try:
        process.stdin.write(message)
        await process.stdin.drain()
    except ConnectionError as error:
        raise _ProcessDiedError from error


async def _receive(process: asyncio.subprocess.Process, size: int) -> bytes:
    if process.stdout is None:
        raise RuntimeError("the process was started without pipes")
    try:
        return await process.stdout.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise _ProcessDiedError from error


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(ConnectionError):
        await process.communicate()  # reads what is left in the pipes, closes them, waits
