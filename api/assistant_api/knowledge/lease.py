"""Do a piece of work only as long as the right to do it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from assistant_api.clients import Database
from assistant_api.database.errors import DATABASE_ERRORS
from assistant_api.knowledge import jobs
from assistant_api.knowledge.jobs import Job
from assistant_observability import logs

Result = TypeVar("Result")

_log = logs.logger(__name__)


class LeaseLostError(Exception):
    """The job is no longer this worker's: taken over, or its document is to be removed, or is gone."""


class Lease:
    """A claimed job's time. It is renewed in the background while `holding` runs its work."""

    def __init__(self, database: Database, job: Job, seconds: float = jobs.LEASE_TTL_SECONDS) -> None:
        self._database = database
        self._job = job
        self._seconds = seconds
        self._until = asyncio.get_running_loop().time() + seconds

    async def secure(self) -> None:
        """Return with the whole time ahead; raises LeaseLostError. For the moment before writing somewhere else."""
        before = asyncio.get_running_loop().time()
        async with self._database.transaction() as connection:
            held = await jobs.renew(connection, self._job, self._seconds)
        if not held:
            raise LeaseLostError
        self._until = before + self._seconds

    async def change(self, update: Callable[..., Awaitable[bool]], *values: object) -> None:
        """Run one of the updates of `jobs` on this job; raises LeaseLostError when it is no longer ours to make."""
        async with self._database.transaction() as connection:
            if not await update(connection, self._job, *values):
                raise LeaseLostError

    async def holding(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work` to its end while renewing; cancel it and raise LeaseLostError when the lease is lost."""
        working = asyncio.create_task(work)
        renewing = asyncio.create_task(self._renew())
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise LeaseLostError
            return working.result()
        finally:
            for task in (working, renewing):
                task.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)

    async def _renew(self) -> None:
        """Return when the lease is lost, or has run out because the database could not be reached."""
        while (left := self._until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(self._seconds / 4, left))
            try:
                async with asyncio.timeout(self._seconds / 4):
                    await self.secure()
            except LeaseLostError:
                return
            except DATABASE_ERRORS as error:
                _log.warning("lease not renewed", document=str(self._job.id), reason=type(error).__name__)
