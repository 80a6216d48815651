"""Probes and metrics over HTTP."""

import aiohttp

from assistant_operator.server import serve


async def test_probes_say_what_is_wrong():
    """Alive and ready answer 200, or 503 with the reason; metrics are in Prometheus' format."""
    runner = await serve(0, lambda: "the queue is stuck", lambda: "")
    port = next(address[1] for address in runner.addresses if address[0] == "0.0.0.0")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/livez") as answer:
            assert (answer.status, await answer.text()) == (503, "the queue is stuck")
        async with session.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
        async with session.get("/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            text = await answer.text()
            assert "assistant_reconcile_queue_depth" in text
            # A gauge of the gateway that the operator never sets would read as a true 0.
            for foreign in ("assistant_ledger_", "assistant_model_", "assistant_http_", "assistant_documents"):
                assert foreign not in text
    await runner.cleanup()
