"""Keeps the Lease from a thread of its own, with its own event loop and its own connection to the API server.

On a starved node, or while many tenants begin at once, the operator's own loop may be late by seconds. A renewal that
waits its turn there comes too late, and an operator that works is deposed. Here it needs a few milliseconds of the
processor every two seconds, independent of the rest of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable

from assistant_observability import logs, metrics
from assistant_operator.adapters.cluster import Cluster
from assistant_operator.lease import Lease

STOP_SECONDS = 8.0
_log = logs.logger(__name__)


class Keeper:
    """Takes, renews and in the end releases a Lease. All methods but `stop` are of the operator's own loop."""

    def __init__(self, lease: Lease, connect: Callable[[], Cluster]) -> None:
        self._lease = lease
        self._connect = connect
        self._home: asyncio.AbstractEventLoop | None = None
        self._looked = asyncio.Event()  # set in the home loop after every look at the Lease
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = False
        self._ended = asyncio.Event()
        self.failed = asyncio.Event()  # the thread ended by itself: the process then restarts

    def start(self) -> None:
        """Start the thread. To be called once."""
        self._home = asyncio.get_running_loop()
        self._thread.start()

    async def acquired(self) -> None:
        """Return once this operator leads."""
        while not self._lease.held:
            await self._looked.wait()
            self._looked.clear()
        metrics.LEADER.set(1)

    async def lost(self) -> None:
        """Return once this operator does not lead any more, at the latest when it may not write any more."""
        term = self._lease.term
        while self._lease.held and self._lease.term == term:
            try:
                # A renewal moves the deadline; without one it is noticed by this loop's own clock.
                async with asyncio.timeout(max(0.01, self._lease.left)):
                    await self._looked.wait()
            except TimeoutError:
                continue
            self._looked.clear()
        metrics.LEADER.set(0)
        _log.error("the lease is lost", lease=self._lease.name)

    async def stop(self) -> None:
        """Release the Lease, so that another operator need not wait, and end the thread, within bounds."""
        self._stopping = True
        if self._home is None or not self._thread.is_alive():
            return
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            _log.warning("the lease's thread did not stop in time")
        metrics.LEADER.set(0)

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        except Exception as error:  # noqa: BLE001 - `failed` reports it to the operator
            _log.error("the lease's thread failed", error=f"{type(error).__name__}: {error}")
        finally:
            if not self._stopping:
                self._call_home(self.failed.set)
            self._call_home(self._looked.set)
            self._call_home(self._ended.set)

    async def _keep(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._stopping:
            return
        cluster = self._connect()
        self._lease.attach(cluster)
        led = False
        try:
            while not self._stop.is_set():
                leads = await self._lease.attempt()
                if leads and not led:
                    _log.info("leading", lease=self._lease.name, term=self._lease.term)
                led = leads
                self._call_home(self._looked.set)
                try:
                    async with asyncio.timeout(self._lease.period * random.uniform(0.5, 1.0)):  # noqa: S311
                        await self._stop.wait()
                except TimeoutError:
                    continue
        finally:
            await self._lease.release()
            await cluster.close()

    def _call_home(self, call: Callable[[], None]) -> None:
        try:
            if self._home is not None:
                self._home.call_soon_threadsafe(call)
        except RuntimeError:
            return  # the home loop is closed already
