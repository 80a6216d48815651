"""The worker as a process: killed, stopped, given hostile documents, cut off from its stores."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import httpx
import pytest
from aiohttp import web
from api_gateway import FakeGateway
from api_tenant import make_tenant
from knowledge_world import World
from worker_process import WorkerProcess, worker_process

from assistant_api.knowledge import jobs
from assistant_cluster import stores

LONG = "\n\n".join(
    f"Paragraph {number} is about subject {number % 7} and value {number * number}." for number in range(700)
)


class SlowGateway(FakeGateway):
    """A gateway whose embeddings take a while, so that a worker can be met in the middle of a document."""

    seconds = 0.0
    embedded = 0

    async def _embeddings(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.seconds)
        self.embedded += 1
        return await super()._embeddings(request)


@pytest.fixture
async def gateway() -> AsyncIterator[SlowGateway]:
    """A gateway in this process."""
    fake = SlowGateway()
    async with fake.served():
        yield fake


async def alive(worker: WorkerProcess) -> None:
    """Wait until the worker answers."""
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{worker.url}/livez") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def test_a_killed_worker_is_replaced_within_half_a_minute(
    world: World, gateway: SlowGateway, tmp_path: Path
) -> None:
    """SIGKILL in the middle of a document: another worker finishes it, to the same end as without the kill."""
    gateway.seconds = 0.3
    document = await world.add("long.txt", LONG)
    with worker_process(tmp_path / "first", world.tenant, gateway.url) as first:
        await _embedded(gateway, 2)
        with worker_process(tmp_path / "second", world.tenant, gateway.url) as second:
            await alive(second)
            gateway.seconds = 0.0
            first.kill()
            killed = time.monotonic()
            ready = await world.settled(document.id, seconds=30)
            assert time.monotonic() - killed < jobs.LEASE_TTL_SECONDS + 10
    assert ready.status == "ready"
    assert await world.vectors.count(world.base.key, document.id) == ready.chunks
    assert await world.vector_count() == ready.chunks


async def test_a_killed_worker_takes_its_parsers_along(world: World, gateway: SlowGateway, tmp_path: Path) -> None:
    """A parser in an endless loop does not outlive the worker that could have ended it."""
    await world.add("slow.md", "*a_" * 8_000_000)
    with worker_process(tmp_path / "w", world.tenant, gateway.url) as worker:
        async with asyncio.timeout(30):
            while not worker.children():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        (parser,) = worker.children()
        await asyncio.sleep(0.5)
        worker.kill()
        async with asyncio.timeout(5):
            while _exists(parser):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_a_stopped_worker_ends_at_once_and_gives_its_document_back(
    world: World, gateway: SlowGateway, tmp_path: Path
) -> None:
    """SIGTERM: exit code 0 within seconds; the document is free for the next worker."""
    gateway.seconds = 20.0
    await world.add("a.txt", "Text.")
    with worker_process(tmp_path / "w", world.tenant, gateway.url) as worker:
        await world.until("SELECT status FROM documents", "processing")
        await asyncio.sleep(0.5)
        started = time.monotonic()
        assert await asyncio.to_thread(worker.terminate) == 0, worker.log()
        assert time.monotonic() - started < 5
    assert await world.rows("SELECT status, lease FROM documents") == [("pending", None)]


async def test_a_hostile_document_leaves_the_worker_alive(world: World, gateway: SlowGateway, tmp_path: Path) -> None:
    """A document that takes the parser for ever fails with a reason; the next one is done."""
    with worker_process(tmp_path / "w", world.tenant, gateway.url, parser_seconds="2", parser_processes="1") as worker:
        bad = await world.add("slow.md", "*a_" * 8_000_000)
        good = await world.add("good.txt", "Good.")
        failed = await world.settled(bad.id, seconds=30)
        assert (failed.status, failed.error and failed.error.code) == ("failed", "parser_timed_out")
        assert (await world.settled(good.id, seconds=30)).status == "ready"
        assert worker.process.poll() is None


async def test_the_worker_shows_what_it_did(world: World, gateway: SlowGateway, tmp_path: Path) -> None:
    """Documents by result, stages with their times and chunks are metrics; logs name no content and no secret."""
    with worker_process(tmp_path / "w", world.tenant, gateway.url) as worker:
        bad = await world.add("bad.pdf", b"%PDF-1.4 Zugspitze")
        good = await world.add("good.txt", "Matterhorn.")
        await world.settled(good.id, seconds=30)
        await world.settled(bad.id, seconds=30)
        await asyncio.sleep(0.2)
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"{worker.url}/metrics")).text
        log = worker.log()
    for line in (
        'assistant_documents_total{knowledge_base="handbook",result="ready"} 1.0',
        'assistant_documents_total{knowledge_base="handbook",result="failed"} 1.0',
        'assistant_ingest_duration_seconds_count{stage="embed"} 1.0',
        'assistant_chunks_total{knowledge_base="handbook"} 1.0',
        "assistant_ingest_time_to_ready_seconds_count 1.0",
    ):
        assert line in metrics
    (took,) = re.findall(r"^assistant_ingest_time_to_ready_seconds_sum (.+)$", metrics, re.MULTILINE)
    assert float(took) > 0
    for foreign in ("assistant_operator_", "assistant_ledger_", "assistant_retrieval"):
        assert foreign not in metrics
    assert str(good.id) in log
    for secret in ("Matterhorn", "Zugspitze", world.tenant.vector_key, world.tenant.dsn):
        assert secret not in log


async def test_the_worker_survives_its_stores(tmp_path: Path, weaviate_store: stores.Weaviate) -> None:
    """Postgres and the gateway away at the start and again later: the worker waits, and goes on by itself."""
    gateway = SlowGateway()
    with stores.postgres() as postgres:
        tenant = await make_tenant(postgres, weaviate_store)
        async with gateway.served():
            postgres.server.stop()
            with worker_process(tmp_path / "w", tenant, gateway.url) as worker:
                await alive(worker)
                postgres.server.start()
                world = World.of(tenant)
                first = await world.add("a.txt", "First.")
                assert (await world.settled(first.id, seconds=30)).status == "ready"
                postgres.server.stop()
                await asyncio.sleep(2)
                postgres.server.start()
                gateway.tokens.clear()
                second = await world.add("b.txt", "Second.")
                await world.until("SELECT error_code FROM documents WHERE name = 'b.txt'", "embedding_unavailable", 30)
                gateway.tokens.add("test-token")
                assert (await world.settled(second.id, seconds=30)).status == "ready"
                assert worker.process.poll() is None
                await world.close()


async def test_the_worker_waits_for_the_vector_store(tmp_path: Path, postgres: stores.Postgres) -> None:
    """While Weaviate is away a document says so; it is ready soon after Weaviate is back."""
    gateway = SlowGateway()
    with stores.weaviate() as weaviate:
        tenant = await make_tenant(postgres, weaviate)
        async with gateway.served():
            with worker_process(tmp_path / "w", tenant, gateway.url) as worker:
                await alive(worker)
                world = World.of(tenant)
                before = await world.add("before.txt", "Before.")
                assert (await world.settled(before.id, seconds=30)).status == "ready"
                weaviate.server.stop()
                document = await world.add("a.txt", "Text.")
                waiting = "SELECT error_code FROM documents WHERE name = 'a.txt'"
                await world.until(waiting, "vector_store_unavailable", 40)
                weaviate.server.start()
                assert (await world.settled(document.id, seconds=40)).status == "ready"
                await world.close()


async def _embedded(gateway: SlowGateway, count: int) -> None:
    async with asyncio.timeout(30):
        while gateway.embedded < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie of a killed parent is waited for by init.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
