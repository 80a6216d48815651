"""`python -m assistant_api.worker`: turns uploaded documents into vectors, as a process of its own.

Apart from the API, so that parsing and embedding a thousand pages does not slow down a single answer, and so that a
document that breaks the parser cannot break the endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

import uvloop
from pydantic import Field

from assistant_api.clients import Clients, connect
from assistant_api.config import Settings
from assistant_api.knowledge import sandbox
from assistant_api.knowledge.dispatcher import Dispatcher
from assistant_api.knowledge.ingestion import Ingestion
from assistant_api.knowledge.sandbox import Sandbox
from assistant_api.knowledge.vectors import Vectors
from assistant_api.server import MetricsApp, server
from assistant_api.tenant_config import TenantConfigHolder
from assistant_observability import logs, metrics, traces

SERVICE = "assistant-worker"
LIVENESS_TIMEOUT_SECONDS = 60.0  # the loop goes round every few seconds; one that does not is of no use


class WorkerSettings(Settings):
    """The settings of the API's pods, and what only the worker has."""

    worker_concurrency: int = Field(4, ge=1, le=64)  # documents at a time
    parser_processes: int = Field(sandbox.MAX_PROCESSES, ge=1, le=16)
    parser_memory_bytes: int = Field(sandbox.MAX_MEMORY_BYTES, ge=128 * 1024 * 1024)  # of each parser's address space
    parser_seconds: float = Field(sandbox.PARSE_TIMEOUT_SECONDS, gt=0)  # for one document


def build(settings: WorkerSettings, clients: Clients, config: TenantConfigHolder, parsers: Sandbox) -> Dispatcher:
    """Return the dispatcher of a process."""
    ingestion = Ingestion(clients.database, clients.gateway, Vectors(clients.weaviate), parsers)
    return Dispatcher(clients.database, ingestion, config, settings.worker_concurrency)


async def serve(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Work until `stop` is set; jobs under way are given back, not finished: the next worker repeats them."""
    config = TenantConfigHolder(settings.config_file)
    clients = connect(settings, config)
    parsers = Sandbox(settings.parser_memory_bytes, settings.parser_seconds, settings.parser_processes)
    dispatcher = build(settings, clients, config, parsers)
    side = server(
        MetricsApp(metrics.WORKER, lambda: dispatcher.idle_for < LIVENESS_TIMEOUT_SECONDS),
        settings.host,
        settings.metrics_port,
        1,
        lifespan=False,
    )
    await config.start()
    beside = asyncio.create_task(side.serve())
    work = asyncio.create_task(dispatcher.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        # Neither of the first two ends by itself: if one does, the process ends with its error and is started anew.
        done, _ = await asyncio.wait({beside, work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        work.cancel()
        stopping.cancel()
        side.should_exit = True
        await asyncio.gather(work, stopping, beside, return_exceptions=True)
        await parsers.close()
        await config.stop()
        await clients.close()
    for task in done - {stopping}:
        task.result()


async def run(settings: WorkerSettings) -> None:
    """Work until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, stop)


def main() -> None:
    """Run the process."""
    settings = WorkerSettings()  # type: ignore[call-arg]  # the values come from the environment and mounted files
    logs.configure(SERVICE, settings.log_format, settings.log_level)
    # Who decided on a document's trace was the API that took it in.
    provider = traces.configure(SERVICE, trusted_parents=True)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(run(settings))
    finally:
        provider.shutdown()


if __name__ == "__main__":
    main()
