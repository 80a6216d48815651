"""Answers under way in a process: bounds, and what others see of a process that has died."""

from __future__ import annotations

from uuid import uuid4

import pytest
from api_world import FakeStore

from assistant_api.conversations import turns
from assistant_api.conversations.running import LEASE_TTL_SECONDS
from assistant_api.conversations.turns import FOLLOW_INTERVAL_SECONDS, SAVE_INTERVAL_SECONDS, Turns
from assistant_api.errors import ApiError


def test_a_dead_process_is_noticed_within_15_seconds() -> None:
    """Its last lease has to run out, and a reader has to look; a slow database must not end a lease by itself."""
    assert LEASE_TTL_SECONDS + FOLLOW_INTERVAL_SECONDS < 15
    assert SAVE_INTERVAL_SECONDS < LEASE_TTL_SECONDS / 8


async def test_a_process_that_has_enough_answers_refuses_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that ends takes none."""
    running = Turns(FakeStore())  # type: ignore[arg-type]
    running.check()
    monkeypatch.setattr(turns, "MAX_TURNS", 0)
    with pytest.raises(ApiError) as refused:
        running.check()
    assert refused.value.kind.code == "server_busy"
    await running.close()
    with pytest.raises(ApiError) as refused:
        running.check()
    assert refused.value.kind.code == "shutting_down"


async def test_what_is_not_written_here_cannot_be_stopped_here() -> None:
    """The process that writes it has to be told."""
    assert not Turns(FakeStore()).stop(uuid4())  # type: ignore[arg-type]
