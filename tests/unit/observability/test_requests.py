"""Every request has one line, in the shape of all lines, written a moment later together with others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from assistant_observability.requests import FLUSH_SECONDS, MOST_WAITING, Request, RequestLog


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def request(request_id: str, **known: Any) -> Request:
    return Request(**{"request_id": request_id, "method": "GET", "route": "/", "status": 200, "ms": 1.5, **known})


async def test_lines_are_written_together_in_the_shape_of_all_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """With time, level, logger and service; what is not known is left out."""
    log = RequestLog()
    log.configure("gateway", "INFO", json=True)
    log.add(request("a", input_tokens=None, key=""))
    log.add(request("b", status=499, code="client_disconnected", input_tokens=0))
    assert written(capsys) == []
    await asyncio.sleep(FLUSH_SECONDS * 2)
    first, second = written(capsys)
    always = {"event", "level", "logger", "timestamp", "service"}
    assert first.keys() == always | {"request_id", "method", "route", "status", "ms"}
    assert (first["event"], first["level"], first["service"]) == ("request", "info", "gateway")
    assert str(first["timestamp"]).endswith("Z")
    assert (second["request_id"], second["code"], second["ms"], second["input_tokens"]) == (
        "b",
        "client_disconnected",
        1.5,
        0,
    )
    log.add(request("c"))
    log.flush()
    assert [line["request_id"] for line in written(capsys)] == ["c"]


async def test_many_lines_do_not_wait(capsys: pytest.CaptureFixture[str]) -> None:
    """What waits is bounded."""
    log = RequestLog()
    log.configure("gateway", "INFO", json=True)
    for number in range(MOST_WAITING):
        log.add(request(str(number)))
    assert len(written(capsys)) == MOST_WAITING


async def test_the_level_holds_for_requests_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever wants warnings only gets no line per request; on a terminal lines are for people."""
    log = RequestLog()
    log.configure("gateway", "WARNING", json=True)
    log.add(request("a"))
    log.flush()
    log.configure("gateway", "INFO", json=False)
    log.add(request("b"))
    log.flush()
    assert (
        capsys.readouterr()
        .err.rstrip()
        .endswith("[info     ] request request_id='b' method='GET' route='/' status=200 ms=1.5")
    )
