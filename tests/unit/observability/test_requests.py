"""Every request has one line, in the shape of all lines, written a moment later together with others."""

from __future__ import annotations

import asyncio
import json

import pytest

from assistant_observability.requests import FLUSH_SECONDS, MOST_WAITING, RequestLog


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_lines_are_written_together_in_the_shape_of_all_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """With time, level, logger and service; what is not known is left out."""
    log = RequestLog()
    log.configure("gateway", "INFO", json=True)
    log.add({"request_id": "a", "status": 200, "code": None, "key": ""})
    log.add({"request_id": "b", "status": 499, "code": "caller_gone", "ms": 1.5})
    assert written(capsys) == []
    await asyncio.sleep(FLUSH_SECONDS * 2)
    first, second = written(capsys)
    assert first.keys() == {"event", "request_id", "status", "level", "logger", "timestamp", "service"}
    assert (first["event"], first["level"], first["service"]) == ("request", "info", "gateway")
    assert (second["request_id"], second["code"], second["ms"]) == ("b", "caller_gone", 1.5)
    log.add({"request_id": "c"})
    log.flush()
    assert [line["request_id"] for line in written(capsys)] == ["c"]


async def test_many_lines_do_not_wait(capsys: pytest.CaptureFixture[str]) -> None:
    """What waits is bounded."""
    log = RequestLog()
    log.configure("gateway", "INFO", json=True)
    for number in range(MOST_WAITING):
        log.add({"request_id": str(number)})
    assert len(written(capsys)) == MOST_WAITING


async def test_the_level_holds_for_requests_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever wants warnings only gets no line per request; on a terminal lines are for people."""
    log = RequestLog()
    log.configure("gateway", "WARNING", json=True)
    log.add({"request_id": "a"})
    log.flush()
    log.configure("gateway", "INFO", json=False)
    log.add({"request_id": "b", "status": 200})
    log.flush()
    assert capsys.readouterr().err.rstrip().endswith("request request_id='b' status=200")
