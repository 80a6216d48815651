"""How fast documents become knowledge, and what the worker costs: start, idle, pick-up, throughput, recovery.

    .venv/bin/python tools/bench/ingestion/measure.py

Everything runs on this machine: real stores with a tenant's own credentials, a worker as a pod starts it, and a
gateway of a few lines that embeds in no time worth mentioning.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import msgspec
from fpdf import FPDF

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "tests" / "integration" / "api" / "support"))

from api_gateway import FakeGateway  # noqa: E402
from api_tenant import make_tenant  # noqa: E402
from knowledge_world import World  # noqa: E402
from worker_process import WorkerProcess, worker_process  # noqa: E402

from assistant_api.knowledge import media, parser  # noqa: E402
from assistant_api.knowledge.parser import Parsed, ParseRequest  # noqa: E402
from assistant_cluster import stores  # noqa: E402

PAGES = 500
IDLE_SECONDS = 30
SMALL_DOCUMENTS = 200


def ordinary_pdf() -> bytes:
    """A PDF of `PAGES` pages of English prose, about 2,400 characters each."""
    text = (ROOT / "LICENSE").read_text().encode("latin-1", "ignore").decode("latin-1")
    while len(text) < PAGES * 2400:
        text += text
    document = FPDF()
    document.set_font("Helvetica", size=9)
    document.set_auto_page_break(False)
    for page in range(PAGES):
        document.add_page()
        document.multi_cell(0, 4, " ".join(text[page * 2400 : (page + 1) * 2400].split()))
    return bytes(document.output())


def cpu_seconds(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def parsing(content: bytes) -> None:
    """Print the pages per second of one core, parsing and chunking, before any embedding."""
    request = ParseRequest(media.PDF, len(content), 250, 30)
    parser.answer(request, content)  # loads the tokens' table
    started = time.process_time()
    result = parser.answer(request, content)
    seconds = time.process_time() - started
    if not isinstance(result, Parsed):
        raise SystemExit(result.message)
    print(f"parse and chunk: {result.pages / seconds:.0f} pages/s of one core ({len(result.chunks)} chunks)")


async def idle(postgres: stores.Postgres, world: World, worker: WorkerProcess) -> None:
    """Print what an idle worker costs."""
    admin = await asyncpg.connect(postgres.superuser_dsn)
    query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1"
    await asyncio.sleep(15)  # Postgres publishes the numbers of the last documents late
    before, used = await admin.fetchval(query, world.tenant.key), cpu_seconds(worker.process.pid)
    await asyncio.sleep(IDLE_SECONDS)
    transactions = (await admin.fetchval(query, world.tenant.key) - before) / IDLE_SECONDS
    used = (cpu_seconds(worker.process.pid) - used) / IDLE_SECONDS
    await admin.close()
    print(f"idle: {transactions:.1f} transactions/s, {used:.1%} of a core, {worker.memory():.0f} MiB, no parser")


async def pick_up(world: World) -> None:
    """Print the time from the end of an upload until a worker has the document, and until it can be found."""
    taken, found = [], []
    for number in range(20):
        document = await world.add(f"pick-{number}.txt", f"Small text number {number}.")
        started = time.perf_counter()
        while (await world.get(document.id)).status == "pending":  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        taken.append(time.perf_counter() - started)
        await world.settled(document.id)
        found.append(time.perf_counter() - started)
    print(
        f"pick-up: {statistics.median(taken) * 1000:.0f} ms (most {max(taken) * 1000:.0f});"
        f" small text ready after {statistics.median(found) * 1000:.0f} ms"
    )


async def throughput(world: World, worker: WorkerProcess, content: bytes) -> None:
    """Print how long a long PDF and many small texts take, whole way."""
    started = time.perf_counter()
    document = await world.add("long.pdf", content)
    view = await world.settled(document.id, 300)
    seconds = time.perf_counter() - started
    print(
        f"PDF of {view.pages} pages: {seconds:.1f} s, {(view.chunks or 0) / seconds:.0f} chunks/s,"
        f" worker {worker.memory():.0f} MiB"
    )
    started = time.perf_counter()
    for number in range(SMALL_DOCUMENTS):
        await world.add(f"small-{number}.txt", f"Text {number}. " + "Lorem ipsum dolor sit amet. " * 40)
    await world.until("SELECT count(*) FROM documents WHERE status <> 'ready'", 0, 300)
    print(f"{SMALL_DOCUMENTS} small texts: {SMALL_DOCUMENTS / (time.perf_counter() - started):.0f} documents/s")
    started = time.perf_counter()
    await world.delete(document.id)
    await world.until("SELECT count(*) FROM documents WHERE name = 'long.pdf'", 0, 60)
    print(f"deletion of {view.chunks} chunks, counted: {time.perf_counter() - started:.2f} s")


async def recovery(world: World, folder: Path, url: str, worker: WorkerProcess) -> None:
    """Print how long a document waits for another worker when its own is killed."""
    with worker_process(folder, world.tenant, url):
        await asyncio.sleep(5)
        document = await world.add("killed.txt", "Some words.\n\n" * 100_000)
        await world.until("SELECT status FROM documents WHERE name = 'killed.txt'", "processing")
        held_by_first = bool(worker.children())
        worker.kill()
        started = time.perf_counter()
        await world.settled(document.id, 60)
        print(
            f"worker killed while it {'parsed' if held_by_first else 'waited'}: document ready"
            f" {time.perf_counter() - started:.1f} s later"
        )


async def measure(postgres: stores.Postgres, weaviate: stores.Weaviate) -> None:
    """Measure everything on one tenant."""
    content = ordinary_pdf()
    parsing(content)
    tenant = await make_tenant(postgres, weaviate)
    sizes = {"max_tokens": 250, "overlap_tokens": 30, "max_documents": 10_000}
    tenant.knowledge_bases[:] = [msgspec.structs.replace(base, **sizes) for base in tenant.knowledge_bases]
    world = World.of(tenant)
    gateway = FakeGateway()
    with tempfile.TemporaryDirectory() as folder:
        async with gateway.served():
            started = time.perf_counter()
            with worker_process(Path(folder) / "first", tenant, gateway.url) as worker:
                first = await world.add("first.txt", "Hello.")
                await world.settled(first.id, 60)
                print(f"start to first document ready: {time.perf_counter() - started:.1f} s")
                await idle(postgres, world, worker)
                await pick_up(world)
                await throughput(world, worker, content)
                await recovery(world, Path(folder) / "second", gateway.url, worker)
    await world.close()


def main() -> None:
    """Measure on stores of its own."""
    with stores.postgres() as postgres, stores.weaviate() as weaviate:
        asyncio.run(measure(postgres, weaviate))


if __name__ == "__main__":
    main()
