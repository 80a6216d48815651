"""Answers under way in this process: each goes on when its reader goes away, and is written down as it grows.

Answers that another process writes are followed by asking the database, so that any replica can serve any reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from assistant_api import errors
from assistant_api.clients import Database
from assistant_api.conversations import running
from assistant_api.conversations.answering import Question, Result, answer
from assistant_api.conversations.running import LEASE_TTL_SECONDS, Finished, Kept
from assistant_api.conversations.turn import Turn
from assistant_api.database.errors import DATABASE_ERRORS
from assistant_api.errors import ApiError
from assistant_observability import logs

SAVE_INTERVAL_SECONDS = 0.5  # between two times that what is new is written down
FOLLOW_INTERVAL_SECONDS = 0.5  # between two looks at what another process has written
MAX_TURNS = 2_000  # of one process
SAVE_TIMEOUT_SECONDS = 60.0  # how long an answer that is complete waits for a database that is away
CLOSE_TIMEOUT_SECONDS = 8.0  # how long the end of the process waits for what is to be written down

_log = logs.logger(__name__)


@dataclass
class _Writing:
    turn: Turn
    lease: UUID
    result: Result = field(default_factory=Result)
    kept: int = 0  # characters that are written down
    kept_parts: int = 0
    renewed: float = 0.0
    ending: str | None = None  # the status that it was ended with from outside
    finishing: bool = False
    task: asyncio.Task[None] | None = None

    def end(self, status: str) -> None:
        """Have it end with what there is."""
        if not self.finishing and self.ending is None and self.task is not None:
            self.ending = status
            self.task.cancel()


class Turns:
    """All answers that this process writes or follows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing: dict[UUID, _Writing] = {}
        self._followed: dict[UUID, tuple[Turn, list[None]]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._closing = False

    def check(self) -> None:
        """Refuse another answer when this process has enough, or ends."""
        if self._closing:
            raise ApiError(errors.SHUTTING_DOWN, retry_after=1)
        if len(self._writing) >= MAX_TURNS:
            raise ApiError(errors.SERVER_BUSY, retry_after=1)

    def start(self, conversation: UUID, identity: UUID, lease: UUID, question: Question) -> Turn:
        """Write an answer that was begun in the database."""
        writing = _Writing(Turn(conversation, identity), lease, renewed=_now())
        writing.turn.interrupt = lambda: writing.end("incomplete")
        self._writing[identity] = writing
        writing.task = asyncio.create_task(self._write(writing, question))
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        return writing.turn

    def stop(self, identity: UUID) -> bool:
        """Stop an answer with what there is of it; False when another process writes it, or nobody."""
        writing = self._writing.get(identity)
        if writing is None:
            return False
        writing.end("stopped")
        return True

    @asynccontextmanager
    async def reading(self, conversation: UUID, identity: UUID) -> AsyncIterator[Turn]:
        """Give an answer that is in the database, wherever it is written, or was."""
        if (writing := self._writing.get(identity)) is not None:
            yield writing.turn
            return
        turn, readers = self._followed.get(identity) or (await self._look(conversation, identity), [])
        turn, readers = self._followed.setdefault(identity, (turn, readers))
        readers.append(None)
        if not turn.ended and (self._follower is None or self._follower.done()):
            self._follower = asyncio.create_task(self._follow())
        try:
            yield turn
        finally:
            readers.pop()
            if not readers:
                self._followed.pop(identity, None)

    async def close(self) -> None:
        """End all answers with what there is of them, because the process ends."""
        self._closing = True
        for writing in self._writing.values():
            writing.end("incomplete")
        if tasks := [writing.task for writing in self._writing.values() if writing.task is not None]:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_SECONDS)
        beside = [task for task in (self._keeper, self._follower) if task is not None]
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)

    async def _write(self, writing: _Writing, question: Question) -> None:
        turn, result = writing.turn, writing.result
        try:
            await answer(question, turn.add, result)
            status = "complete"
        except asyncio.CancelledError:
            status = writing.ending or "incomplete"
            if status == "incomplete":
                result.error = ApiError(errors.STREAM_INTERRUPTED)
        writing.finishing = True
        if result.error is not None:
            turn.error = result.error
            status = "incomplete" if turn.length else "failed"
        try:
            await self._save(writing, status)
        finally:
            self._writing.pop(turn.id, None)
            turn.end()

    async def _save(self, writing: _Writing, status: str) -> None:
        turn, result = writing.turn, writing.result
        tokens = result.tokens or (None, None)
        code = None if result.error is None else result.error.kind.code
        finished = Finished(
            turn.id, writing.lease, "".join(turn.parts), status, code, result.model, result.annotations, *tokens
        )
        give_up = _now() + SAVE_TIMEOUT_SECONDS
        while True:
            try:
                async with self._database.single() as connection:
                    await running.finish(connection, finished)
            except DATABASE_ERRORS as error:
                if _now() > give_up or self._closing:
                    _log.error("answer not saved", message=str(turn.id), reason=type(error).__name__)
                    return
                await asyncio.sleep(SAVE_INTERVAL_SECONDS)
            else:
                return

    async def _keep(self) -> None:
        """Write down what is new of all answers, and renew their leases, in one statement each time."""
        while self._writing:
            await asyncio.sleep(SAVE_INTERVAL_SECONDS)
            now = _now()
            due = [
                writing
                for writing in self._writing.values()
                if not writing.finishing
                and (writing.turn.length > writing.kept or now - writing.renewed > LEASE_TTL_SECONDS / 4)
            ]
            if not due:
                continue
            new = [
                Kept(each.turn.id, each.lease, each.kept, "".join(each.turn.parts[each.kept_parts :])) for each in due
            ]
            parts = [len(each.turn.parts) for each in due]
            try:
                async with self._database.single() as connection:
                    there = await running.keep(connection, new)
            except DATABASE_ERRORS as error:
                _log.warning("answers not written down", answers=len(due), reason=type(error).__name__)
                continue
            for writing, kept, part in zip(due, new, parts, strict=True):
                writing.kept, writing.kept_parts = kept.place + len(kept.more), part
                writing.renewed = now
                if there.get(kept.id, True):  # stopped by another process, or its conversation was deleted
                    writing.end("stopped")

    async def _look(self, conversation: UUID, identity: UUID) -> Turn:
        turn = Turn(conversation, identity)
        await self._catch_up({identity: turn})
        return turn

    async def _follow(self) -> None:
        while turns := {identity: turn for identity, (turn, _) in self._followed.items() if not turn.ended}:
            await asyncio.sleep(FOLLOW_INTERVAL_SECONDS)
            try:
                await self._catch_up(turns)
            except DATABASE_ERRORS as error:
                _log.warning("answers not followed", answers=len(turns), reason=type(error).__name__)

    async def _catch_up(self, turns: dict[UUID, Turn]) -> None:
        async with self._database.reading() as connection:
            news = await running.news(connection, {identity: turn.length for identity, turn in turns.items()})
        for identity, turn in turns.items():
            under_way, more = news.get(identity, (False, ""))
            if more:
                turn.add(more)
            if not under_way:
                turn.end()


def _now() -> float:
    return asyncio.get_running_loop().time()
