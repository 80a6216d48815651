"""The port for metrics."""

from __future__ import annotations

import httpx
import pytest

from assistant_api.server import MetricsApp
from assistant_observability import metrics as every_metric


@pytest.mark.parametrize(("alive", "status"), [(True, 200), (False, 503)])
async def test_metrics_and_liveness(*, alive: bool, status: int) -> None:
    """Prometheus' text format; liveness is what the process says of itself; nothing else is there."""
    transport = httpx.ASGITransport(MetricsApp(every_metric.API, lambda: alive))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        metrics = await client.get("/metrics")
        assert "assistant_http_requests_in_flight" in metrics.text
        assert metrics.headers["content-type"].startswith("text/plain")
        assert (await client.get("/livez")).status_code == status
        assert (await client.get("/v1/models")).status_code == 404


@pytest.mark.parametrize(
    ("part", "own", "foreign"),
    [
        (every_metric.API, "assistant_retrievals", "assistant_documents"),
        (every_metric.WORKER, "assistant_documents", "assistant_retrievals"),
    ],
)
async def test_api_and_worker_show_their_own_metrics_only(part: every_metric.Part, own: str, foreign: str) -> None:
    """No series of the other process, of the operator or of the gateway."""
    transport = httpx.ASGITransport(MetricsApp(part))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        text = (await client.get("/metrics")).text
    assert f"# TYPE {own}_total counter" in text
    for absent in (
        foreign,
        "assistant_operator_leader",
        "assistant_ledger_",
        "assistant_model_",
        "assistant_reconcile",
    ):
        assert absent not in text
