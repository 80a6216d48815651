"""Probes and metrics of the gateway."""

from __future__ import annotations

from unittest.mock import Mock

from aiohttp.test_utils import TestClient, TestServer

from assistant_gateway.operations import Operations


async def test_the_gateway_shows_its_own_metrics_only() -> None:
    """`/metrics` has the gateway's series and none of the operator, the tenant API or its worker."""
    operations = Operations(Mock(), Mock(), Mock())
    async with TestClient(TestServer(operations.application)) as client:
        text = await (await client.get("/metrics")).text()
    assert "assistant_ledger_entries_waiting" in text
    for absent in ("assistant_operator_", "assistant_reconcile", "assistant_retrieval", "assistant_documents"):
        assert absent not in text
