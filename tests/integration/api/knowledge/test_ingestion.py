"""Documents into and out of real stores, with the credentials of a tenant's pods."""

from __future__ import annotations

import asyncio
import time

import pytest
from fpdf import FPDF
from knowledge_world import World

from assistant_api.errors import ApiError
from assistant_api.gateway import GatewayError, GatewayUnreachableError
from assistant_api.knowledge import dispatcher, ingestion, jobs

PARAGRAPHS = [
    f"Paragraph {number} is about subject {number % 7} and the value {number * number}." for number in range(700)
]
LONG = "\n\n".join(PARAGRAPHS)


def pdf(*pages: str) -> bytes:
    document = FPDF()
    document.set_font("Helvetica", size=11)
    for text in pages:
        document.add_page()
        document.multi_cell(0, 6, text)
    return bytes(document.output())


async def test_a_document_becomes_vectors(world: World) -> None:
    """An upload is pending, then ready with its pages and chunks; the store holds exactly these."""
    document = await world.add("manual.pdf", pdf("The torque is 42 newton metres.", "Use mineral oil MO-5 only."))
    assert (document.status, document.pages, document.chunks) == ("pending", None, None)
    async with world.worker():
        ready = await world.settled(document.id)
    assert (ready.status, ready.pages, ready.chunks, ready.error) == ("ready", 2, 2, None)
    assert await world.vectors.count(world.base.key, document.id) == 2
    assert [call[1:] for call in world.gateway.calls] == [("handbook", "ingest")]
    assert await world.rows("SELECT lease, leased_until, attempts FROM documents") == [(None, None, 0)]


async def test_a_document_is_picked_up_at_once(world: World) -> None:
    """The worker is told of an upload; it does not find it by chance."""
    async with world.worker():
        await asyncio.sleep(1.0)
        started = time.perf_counter()
        document = await world.add("a.txt", "Short.")
        await world.settled(document.id)
    assert time.perf_counter() - started < dispatcher.POLL_INTERVAL_SECONDS / 2


async def test_many_batches_are_written_completely(world: World) -> None:
    """A document of several requests to the model and the store arrives whole and in order."""
    document = await world.add("long.txt", LONG)
    async with world.worker():
        ready = await world.settled(document.id)
    assert ready.chunks is not None
    assert ready.chunks > 2 * ingestion.MAX_BATCH_CHUNKS
    assert await world.vectors.count(world.base.key, document.id) == ready.chunks
    assert max(len(texts) for texts, _, _ in world.gateway.calls) == ingestion.MAX_BATCH_CHUNKS


async def test_the_same_file_again_is_the_same_document(world: World) -> None:
    """Repeating an upload is harmless; other bytes under the name are another document."""
    first = await world.upload("a.txt", "One.")
    again = await world.upload("a.txt", "One.")
    other = await world.upload("a.txt", "Two.")
    assert (first.created, again.created, other.created) == (True, False, True)
    assert again.document.id == first.document.id != other.document.id


async def test_a_new_version_takes_over_when_it_is_ready(world: World) -> None:
    """Until then the old one answers; afterwards nothing is left of it."""
    async with world.worker():
        old = await world.add("a.txt", "The limit is 100 euros.")
        await world.settled(old.id)
        world.gateway.gate.clear()
        new = await world.add("a.txt", "The limit is 200 euros.")
        await _until(lambda: world.gateway.waiting == 1)
        assert (await world.get(old.id)).status == "ready"
        world.gateway.gate.set()
        assert (await world.settled(new.id)).status == "ready"
        await world.until("SELECT count(*) FROM documents", 1)
    assert await world.vectors.count(world.base.key, old.id) == 0
    assert await world.leftovers() == (1, 1, 1)


async def test_a_version_that_was_overtaken_goes_itself(world: World) -> None:
    """When the newer one is ready first, the older one never takes its place."""
    old = await world.add("a.txt", "Old.")
    new = await world.add("a.txt", "New.")
    await world.execute("UPDATE documents SET run_after = now() + interval '1 second' WHERE id = :id", id=old.id)
    async with world.worker():
        await world.settled(new.id)
        await world.until("SELECT count(*) FROM documents", 1)
    assert (await world.get(new.id)).status == "ready"
    assert await world.leftovers() == (1, 1, 1)


async def test_a_failed_new_version_leaves_the_old_one_in_use(world: World) -> None:
    """A broken file under a known name breaks nothing; the good one stays until a readable one comes."""
    async with world.worker():
        old = await world.add("a.pdf", pdf("Good."))
        await world.settled(old.id)
        broken = await world.add("a.pdf", b"%PDF-1.4 broken")
        assert (await world.settled(broken.id)).status == "failed"
        assert (await world.get(old.id)).status == "ready"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.pdf", b"%PDF-1.7 cut off", "document_damaged"),
        ("a.pdf", pdf(""), "document_has_no_text"),
        ("a.txt", b"  \n ", "document_has_no_text"),
    ],
)
async def test_a_document_that_cannot_be_read_fails_with_its_reason(
    world: World, name: str, content: bytes, code: str
) -> None:
    """Failed, with code and sentence; the worker goes on."""
    async with world.worker():
        bad = await world.add(name, content)
        good = await world.add("good.txt", "Good.")
        failed = await world.settled(bad.id)
        assert (await world.settled(good.id)).status == "ready"
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.message[-1]) == (code, ".")
    assert (failed.pages, failed.chunks) == (None, None)


async def test_a_failed_document_is_tried_again_when_it_is_sent_again(world: World) -> None:
    """The second upload of the same bytes starts over, under the same id."""
    world.gateway.failures = [GatewayError(400, "invalid_request_error", "input too long")]
    async with world.worker():
        first = await world.add("a.txt", "Text.")
        failed = await world.settled(first.id)
        assert failed.error is not None
        assert failed.error.code == ingestion.REFUSED
        assert "input too long" in failed.error.message
        again = await world.upload("a.txt", "Text.")
        assert (again.created, again.document.id, again.document.error) == (False, first.id, None)
        assert (await world.settled(first.id)).status == "ready"


async def test_a_short_outage_of_the_model_is_bridged(world: World) -> None:
    """Rate limits and failures of the provider are waited for; the document becomes ready all the same."""
    world.gateway.failures = [
        GatewayError(429, "rate_limit_exceeded", "slow down", 0.1),
        GatewayError(502, "provider_error", "oops"),
        GatewayUnreachableError("refused"),
    ]
    async with world.worker():
        document = await world.add("a.txt", "Text.")
        assert (await world.settled(document.id)).status == "ready"
    assert len(world.gateway.calls) == 4


async def test_a_long_outage_of_the_model_is_told_and_healed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document waits, says why, and is done when the model is back; nobody has to touch it."""
    monkeypatch.setattr(ingestion, "EMBED_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(dispatcher, "MIN_RETRY_DELAY_SECONDS", 0.2)
    world.gateway.failures = [GatewayUnreachableError("refused")] * 9
    async with world.worker():
        document = await world.add("a.txt", "Text.")
        await world.until("SELECT retries FROM documents", 1)
        waiting = await world.get(document.id)
        assert (waiting.status, waiting.error and waiting.error.code) == ("pending", "embedding_unavailable")
        ready = await world.settled(document.id)
    assert (ready.status, ready.error) == ("ready", None)


@pytest.mark.parametrize(
    ("status", "code", "retry_after"),
    [(429, "budget_exhausted", 2_000_000.0), (429, "tokens_exhausted", None), (403, "price_unknown", None)],
)
async def test_a_used_up_limit_is_told_and_the_document_goes_on_when_it_is_raised(
    world: World, monkeypatch: pytest.MonkeyPatch, status: int, code: str, retry_after: float | None
) -> None:
    """It waits with the reason, asks once each time and not for the rest of the month, and is done when it may."""
    monkeypatch.setattr(ingestion, "MAX_LIMIT_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(dispatcher, "MIN_RETRY_DELAY_SECONDS", 0.2)
    world.gateway.failures = [GatewayError(status, code, "Nothing is left.", retry_after)] * 3
    async with world.worker():
        document = await world.add("a.txt", "Text.")
        await world.until("SELECT retries FROM documents", 2)
        waiting = await world.get(document.id)
        assert (waiting.status, waiting.error and waiting.error.code) == ("pending", code)
        assert "Nothing is left." in (waiting.error.message if waiting.error else "")
        ready = await world.settled(document.id)
    assert (ready.status, ready.error) == ("ready", None)
    assert len(world.gateway.calls) == 4


async def test_vectors_of_the_wrong_size_fail_with_both_sizes(world: World) -> None:
    """A model that does not fit the knowledge base is named as such, and nothing is left behind."""
    world.gateway.dimensions = 8
    async with world.worker():
        document = await world.add("a.txt", "Text.")
        failed = await world.settled(document.id)
    assert failed.error is not None
    assert failed.error.code == ingestion.MISMATCH
    assert "8 dimensions" in failed.error.message
    assert "256" in failed.error.message
    assert await world.vector_count() == 0


async def test_a_refusal_in_the_middle_leaves_no_vector(world: World) -> None:
    """When a later batch is refused, the chunks of the earlier ones go too."""
    document = await world.add("long.txt", LONG)
    async with world.worker():
        await _until(lambda: len(world.gateway.calls) >= 2)
        world.gateway.failures = [GatewayError(400, "invalid_request_error", "no")]
        assert (await world.settled(document.id)).status == "failed"
    assert await world.vector_count() == 0
    assert await world.rows("SELECT chunks FROM documents") == [(0,)]


async def test_a_deleted_document_is_gone_without_a_trace(world: World) -> None:
    """Out of sight at once; vectors, content and row within moments."""
    async with world.worker():
        document = await world.add("long.txt", LONG)
        await world.settled(document.id)
        await world.delete(document.id)
        with pytest.raises(ApiError):
            await world.get(document.id)
        await world.until("SELECT count(*) FROM documents", 0)
    assert await world.leftovers() == (0, 0, 0)


async def test_a_deletion_during_ingestion_wins(world: World) -> None:
    """Whatever the worker was about to write, nothing of the document remains."""
    document = await world.add("long.txt", LONG)
    async with world.worker():
        await _until(lambda: len(world.gateway.calls) >= 2)
        world.gateway.gate.clear()
        await _until(lambda: world.gateway.waiting > 0)
        await world.delete(document.id)
        world.gateway.gate.set()
        await world.until("SELECT count(*) FROM documents", 0)
        await asyncio.sleep(0.3)
    assert await world.leftovers() == (0, 0, 0)


async def test_a_worker_that_stops_gives_its_document_back(world: World) -> None:
    """After SIGTERM the next worker need not wait for a lease to run out."""
    document = await world.add("long.txt", LONG)
    world.gateway.gate.clear()
    async with world.worker():
        await _until(lambda: world.gateway.waiting > 0)
    assert await world.rows("SELECT status, lease, attempts FROM documents") == [("pending", None, 0)]
    world.gateway.gate.set()
    async with world.worker():
        assert (await world.settled(document.id, seconds=5)).status == "ready"


async def test_a_repetition_that_cuts_fewer_chunks_leaves_none_of_the_others(world: World) -> None:
    """What an earlier attempt wrote beyond the end is removed before the document is ready."""
    document = await world.add("a.txt", LONG)
    async with world.worker():
        first = await world.settled(document.id)
    await world.execute("UPDATE documents SET status = 'pending'")
    larger = world.tenant.config()
    base = larger.knowledge_bases[0]
    bigger = type(base)(**{**{name: getattr(base, name) for name in base.__struct_fields__}, "max_tokens": 250})
    world.config.replace(
        type(larger)(**{**{n: getattr(larger, n) for n in larger.__struct_fields__}, "knowledge_bases": [bigger]})
    )
    async with world.worker():
        second = await world.settled(document.id)
    assert first.chunks is not None
    assert second.chunks is not None
    assert second.chunks < first.chunks
    assert await world.vector_count() == second.chunks


async def test_a_document_that_keeps_killing_the_worker_is_given_up(world: World) -> None:
    """After a few claims without outcome it fails, instead of ending the worker for ever."""
    document = await world.add("a.txt", "Text.")
    await world.execute("UPDATE documents SET attempts = :n", n=dispatcher.MAX_ATTEMPTS)
    async with world.worker():
        failed = await world.settled(document.id)
    assert (failed.status, failed.error and failed.error.code) == ("failed", "worker_died")


async def test_two_workers_share_the_work(world: World) -> None:
    """No document is done twice, none is left."""
    documents = [await world.add(f"{number}.txt", f"Text {number}.") for number in range(40)]
    async with world.worker(), world.worker():
        for document in documents:
            assert (await world.settled(document.id)).status == "ready"
    assert len(world.gateway.calls) == 40
    assert await world.vector_count() == 40


async def test_documents_of_an_unknown_knowledge_base_wait(world: World) -> None:
    """While the configuration does not have it, nothing happens to it; when it is back, work goes on."""
    whole = world.tenant.config()
    fields = {name: getattr(whole, name) for name in whole.__struct_fields__}
    world.config.replace(type(whole)(**{**fields, "knowledge_bases": whole.knowledge_bases[1:]}))
    document = await world.add("a.txt", "Text.")
    async with world.worker() as worker:
        await asyncio.sleep(0.5)
        assert (await world.get(document.id)).status == "pending"
        world.config.replace(whole)
        worker._wake.set()
        assert (await world.settled(document.id)).status == "ready"


async def test_a_forgotten_knowledge_base_stops_its_documents(world: World) -> None:
    """When the operator removes a knowledge base, a document under way ends quietly and the worker goes on."""
    document = await world.add("long.txt", LONG)
    other = world.tenant.knowledge_bases[1]
    async with world.worker():
        await _until(lambda: len(world.gateway.calls) >= 2)
        world.gateway.gate.clear()
        await _until(lambda: world.gateway.waiting > 0)
        assert await world.tenant.operator_database().forget(world.tenant.key, world.base.key) == 1
        operator = world.tenant.operator_vectors()
        await operator.remove_knowledge_base(world.base.key)
        await operator.close()
        world.gateway.gate.set()
        kept = await world.add("a.txt", "Text.", other)
        await world.until("SELECT status FROM documents", "ready")
    assert await world.rows("SELECT id FROM documents") == [(kept.id,)]
    assert document.id != kept.id


async def test_the_operator_counts_what_is_there(world: World) -> None:
    """At no moment are there more vectors than the rows account for, so no orphan is ever reported by mistake."""
    document = await world.add("long.txt", LONG)
    operator = world.tenant.operator_vectors()
    seen = []
    async with world.worker():
        while (await world.get(document.id)).status != "ready":
            vectors = await operator.vectors(world.base.key)
            rows = (await world.tenant.operator_database().rows(world.tenant.key, [world.base.key]))[world.base.key]
            seen.append((vectors, rows.chunks))
    await operator.close()
    assert all(vectors <= chunks for vectors, chunks in seen)
    rows = (await world.tenant.operator_database().rows(world.tenant.key, [world.base.key]))[world.base.key]
    assert (rows.documents, rows.pending, rows.failed, rows.chunks) == (1, 0, 0, await world.vector_count())


async def test_a_claim_that_ran_out_cannot_change_anything(world: World) -> None:
    """A worker that was taken for dead does not overwrite what its successor did."""
    await world.add("a.txt", "Text.")
    keys = [world.base.key]
    async with world.database.transaction() as connection:
        first = await jobs.claim(connection, keys, 0.01)
    assert first is not None
    await asyncio.sleep(0.05)
    async with world.database.transaction() as connection:
        second = await jobs.claim(connection, keys, 60)
    assert second is not None
    assert (second.id, second.attempts) == (first.id, 2)
    async with world.database.transaction() as connection:
        assert not await jobs.renew(connection, first, 60)
        assert not await jobs.succeed(connection, first, None, 1)
        assert not await jobs.fail(connection, first, "x", "x")
        assert not await jobs.postpone(connection, first, 1, "x", "x")
        await jobs.release(connection, first)
        assert await jobs.renew(connection, second, 60)
        assert await jobs.claim(connection, keys, 60) is None


async def _until(true: object, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
