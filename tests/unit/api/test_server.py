"""The port for metrics."""

from __future__ import annotations

import httpx
import pytest

from assistant_api.server import MetricsApp


@pytest.mark.parametrize(("alive", "status"), [(True, 200), (False, 503)])
async def test_metrics_and_liveness(*, alive: bool, status: int) -> None:
    """Prometheus' text format; liveness is what the process says of itself; nothing else is there."""
    transport = httpx.ASGITransport(MetricsApp(lambda: alive))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        metrics = await client.get("/metrics")
        assert "assistant_http_requests_in_flight" in metrics.text
        assert metrics.headers["content-type"].startswith("text/plain")
        assert (await client.get("/livez")).status_code == status
        assert (await client.get("/v1/models")).status_code == 404
