"""Kopf's watches in a thread of their own: it takes over signals and cancels every task of the loop that it runs in."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial

import kopf

from assistant_operator import handlers
from assistant_operator.index import Index
from assistant_operator.liveness import Liveness

STOP_SECONDS = 8.0


class Watches:
    """Runs the watches until stopped. `failed` is set when they end by themselves: the process then restarts."""

    def __init__(self, routes_namespace: str, index: Index, liveness: Liveness, enqueue: Callable[..., None]) -> None:
        def enqueue_home(namespace: str, urgent: bool) -> None:
            if namespace:
                self._call_home(partial(enqueue, namespace, urgent=urgent))

        self._home = asyncio.get_running_loop()
        self._registry = kopf.OperatorRegistry()
        self._settings = kopf.OperatorSettings()
        handlers.configure(self._settings)
        handlers.register(self._registry, handlers.Triggers(routes_namespace, index, liveness, enqueue_home))
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = False
        self._ended = asyncio.Event()
        self.failed = asyncio.Event()
        self.ready = threading.Event()
        # Every event is worth an INFO line to kopf, and a thread without signals a warning.
        logging.getLogger("kopf").setLevel(logging.WARNING)
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Stop the watches and wait for the thread, within bounds."""
        self._stopping = True
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread.is_alive():
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                logging.getLogger(__name__).warning("the watches did not stop in time")

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception:
            logging.getLogger(__name__).exception("the watches failed")
        finally:
            if not self._stopping:
                self._call_home(self.failed.set)
            self._call_home(self._ended.set)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._stopping:
            return
        await kopf.operator(
            registry=self._registry,
            settings=self._settings,
            clusterwide=True,
            standalone=True,
            stop_flag=self._stop,
            ready_flag=self.ready,
        )

    def _call_home(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._home.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return  # the home loop is closed already
