"""The connection to Redis as the limits need it: an answer at once or none, and no waiting for a store that is away.

Calls that come together go together, in one pipeline on one connection: five hundred at once do not open five
hundred connections, and cost a fifth of five hundred single calls. A crowd goes in parts on two connections: while
Redis works on one part, this process works on the answers to the other. A call without an answer marks Redis as away;
from then on nobody asks it but a single task, until that one gets an answer. So an outage costs one short time-out,
not one per request. An answer that refuses one call says nothing about the others: only that call fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeAlias

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Client
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from assistant_gateway.capacity.fairness import Crowd
from assistant_observability import logs, metrics

ANSWER_SECONDS = 0.1
SET_UP_SECONDS = 2.0  # nobody waits for these answers
RETRY_SECONDS = (0.05, 1.0)
PING_SECONDS = 5.0
LATE_SECONDS = 0.02  # a timer of this process that comes so much too late
LONGEST_SECONDS = 1.0  # to wait for an answer while this process is late
CONNECTIONS = 2  # for tasks: who looks after Redis, and who moves the ledger; the calls have their own
SENDERS = 2
REFUSALS_QUIET_SECONDS = 10.0
CROWD = 50  # calls that go together at most
# Of one tenant while others ask: their answers come together, too, and each is some work. One more uses a second
# connection.
OF_ONE = 10

# Refusals that every other call would get as well; the last text: a user's rights lack what the script calls.
_WHOLE_STORE = (AuthenticationError, MasterDownError, NoPermissionError, ReadOnlyError)
_WHOLE_STORE_CODES = ("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOREPLICAS", "UNKILLABLE")
_NO_RIGHTS = "can't run this command"

_Waiting: TypeAlias = tuple[Sequence[str | int | bytes], asyncio.Future[Any]]

_log = logs.logger(__name__)


class UnavailableError(Exception):
    """There is no answer, or none that makes sense."""


class Patience:
    """A time-out for the other side. While this process is late itself, the answer may be there: the time begins anew.

    Late is a process with much to do, or one that is not given the processor.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._latest = self._loop.time() + max(LONGEST_SECONDS, seconds)
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _begin(self) -> None:
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now - self._due > LATE_SECONDS and now < self._latest:
            self._begin()
        else:
            self._timeout.reschedule(now)


class Redis:
    """Runs one script. `run` keeps `available` true to the facts."""

    def __init__(self, url: str, script: bytes, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._script = script
        self._sha = hashlib.sha1(script, usedforsecurity=False).hexdigest()
        self._answer_seconds = answer_seconds
        # Protocol 2 and no driver information: neither HELLO nor CLIENT, which the narrow ACL user need not have.
        self._pool = BlockingConnectionPool.from_url(
            url,
            protocol=2,
            driver_info=None,
            max_connections=CONNECTIONS,
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        self._client: Client = Client(connection_pool=self._pool)
        self._connections: list[AbstractConnection] = [
            self._pool.make_connection()  # type: ignore[no-untyped-call]
            for _ in range(SENDERS)
        ]
        self._idle = self._connections.copy()
        self._away = asyncio.Event()
        self._away.set()
        self.available = False  # whether the last that was heard from Redis was an answer: `_away`, at no call's cost
        self._waiting: Crowd[_Waiting] = Crowd(CROWD, OF_ONE)
        self._senders: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive
        self._reason = ""
        self._quiet_until = 0.0  # no refusal of a single call is logged before
        self._proven = True  # whether it has done what it is here for since it was last away

    @property
    def address(self) -> str:
        """Where Redis is, without credentials."""
        where: dict[str, Any] = self._pool.connection_kwargs
        return str(where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', 6379)}")

    async def run_script(self, tenant: str, arguments: Sequence[str | int | bytes]) -> Any:
        """Run the script for a tenant; `arguments` are the number of keys, the keys, and the rest.

        Raises:
            UnavailableError: Redis is away, silent for longer than the time-out, or refuses.
        """
        if not self.available:
            raise UnavailableError("away")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(tenant, (arguments, future))
        if self._idle and (len(self._idle) == SENDERS or len(self._waiting) > OF_ONE):
            self._senders.add(task := asyncio.create_task(self._send(self._idle.pop())))
            task.add_done_callback(self._senders.discard)
        return await future

    async def command(self, *arguments: str | bytes | int) -> Any:
        """Run a command for which no caller waits: it may take longer than the script.

        Raises:
            UnavailableError: there is no answer, or a refusal.
        """
        try:
            async with asyncio.timeout(SET_UP_SECONDS):
                return await self._command(*arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(str(error) or "no answer in time") from None

    async def commands(self, commands: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """Run several commands for which no caller waits, in one round trip.

        Raises:
            UnavailableError: there is no answer, or one of them is refused.
        """
        try:
            async with asyncio.timeout(SET_UP_SECONDS), self._client.pipeline(transaction=False) as pipeline:
                for arguments in commands:
                    pipeline.execute_command(*arguments)
                return list(await pipeline.execute())
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(str(error) or "no answer in time") from None

    async def _send(self, connection: AbstractConnection) -> None:
        """Send what waits, as much as may go together, until nothing waits any more."""
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                batch = self._waiting.take()
                try:
                    replies = await self._evaluate(connection, [arguments for arguments, _ in batch])
                except (RedisError, OSError, TimeoutError) as error:
                    batch += self._waiting.take_all()
                    replies = [error] * len(batch)
                for (_, future), reply in zip(batch, replies, strict=True):
                    self._answer(future, reply)
        finally:
            self._idle.append(connection)
            for _, future in batch + self._waiting.take_all():  # after a success there are none
                self._answer(future, UnavailableError("closed"))

    def _answer(self, future: asyncio.Future[Any], reply: Any) -> None:
        if future.done():  # answered, or whoever asked has gone
            return
        if isinstance(reply, ResponseError) and not _is_of_the_whole_store(reply):
            self._note_refusal(reply)
            future.set_exception(UnavailableError(str(reply)))
        elif isinstance(reply, Exception):
            future.set_exception(UnavailableError(self._lose(reply)))
        else:
            self._proven = True
            future.set_result(reply)

    def _note_refusal(self, error: ResponseError) -> None:
        """Log the first refusal of a call in ten seconds; the metric counts all."""
        metrics.LIMIT_ERRORS.labels("memory" if isinstance(error, OutOfMemoryError) else "other").inc()
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + REFUSALS_QUIET_SECONDS
            _log.error("Redis refuses a call of the limits", address=self.address, reason=str(error)[:300])

    async def _evaluate(
        self, connection: AbstractConnection, calls: Sequence[Sequence[str | int | bytes]]
    ) -> list[Any]:
        async with Patience(self._answer_seconds):
            replies = await _pipeline(connection, "EVALSHA", self._sha, calls)
        lost = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if lost:
            async with Patience(self._answer_seconds):
                again = await _pipeline(connection, "EVAL", self._script, [calls[index] for index in lost])
            for index, reply in zip(lost, again, strict=True):
                replies[index] = reply
        return replies

    async def run(self) -> None:
        """Make Redis available, and again whenever it is away, for ever. Says so once per change."""
        told_away, told_back, delay = False, False, RETRY_SECONDS[0]
        while True:
            if self.available:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PING_SECONDS):
                        await self._away.wait()
                self._proven = await self._look() or self._proven
                continue
            if self._proven:
                told_away, delay = False, RETRY_SECONDS[0]
            else:  # still away, or it answers but refuses the script: ask less and less often
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
                delay = min(delay * 2, RETRY_SECONDS[1])
            self._proven = False
            if self._reason and not told_away:
                told_away, told_back = True, False
                _log.warning("Redis is away: limits are local", address=self.address, reason=self._reason)
            if await self._look() and not told_back:
                told_back = True
                _log.info("Redis answers: limits are shared", address=self.address)

    async def _look(self) -> bool:
        """Ask whether Redis is there, and make the script known to it."""
        try:
            async with asyncio.timeout(SET_UP_SECONDS):
                await self._command("SCRIPT LOAD", self._script)
                if not self.available:  # so that no call has to wait for it
                    for connection in self._idle.copy():
                        await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            return False
        self._away.clear()
        self.available = True
        return True

    def _lose(self, error: Exception) -> str:
        self._reason = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        self._away.set()
        self.available = False
        return self._reason

    async def _command(self, *arguments: str | bytes | int) -> Any:
        return await self._client.execute_command(*arguments)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            await connection.disconnect(nowait=True)
        await self._pool.disconnect()


async def _pipeline(
    connection: AbstractConnection, command: str, script: str | bytes, calls: Sequence[Sequence[str | int | bytes]]
) -> list[Any]:
    """Ask all at once; a pool's connection, and its packing, would cost more than the rest of a call."""
    try:
        if connection.is_connected and await connection.can_read():  # nobody asked: it was closed
            await connection.disconnect(nowait=True)
        packed = [pack_command((command, script, *arguments)) for arguments in calls]  # type: ignore[arg-type]
        await connection.send_packed_command(packed, check_health=False)
        return [await _reply(connection) for _ in calls]
    except BaseException:
        await connection.disconnect(nowait=True)  # what still comes must not answer those who ask next
        raise


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _is_of_the_whole_store(error: ResponseError) -> bool:
    """Whether a refusal says that Redis serves nobody, as opposed to one call that it cannot serve."""
    text = str(error)
    return isinstance(error, _WHOLE_STORE) or text.startswith(_WHOLE_STORE_CODES) or _NO_RIGHTS in text
