"""The rule of request rates, against what it promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.limits.gcra import MICROSECONDS_PER_MINUTE, LocalRates, RateLimit


@pytest.mark.parametrize(("limit", "burst"), [(1, 1), (2, 2), (5, 5), (6, 5), (60, 10), (61, 11), (600, 100)])
def test_burst_is_a_sixth_of_the_limit_but_never_stingy(limit: int, burst: int) -> None:
    """Small limits may be used at once, large ones ten seconds' worth."""
    assert RateLimit("tenant", "k", limit).burst == burst


@given(
    limit=st.integers(1, 5000),
    waits=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=200),
)
def test_no_minute_sees_more_than_the_limit_and_one_burst(limit: int, waits: list[int]) -> None:
    """In every window of a minute no more is let through than the sustained rate and one burst."""
    level, rates, now, admitted = RateLimit("tenant", "k", limit), LocalRates(), 0, []
    for wait in waits:
        now += wait
        if rates.admit([level], now).allowed:
            admitted.append(now)
    for start in admitted:
        window = [moment for moment in admitted if start <= moment < start + MICROSECONDS_PER_MINUTE]
        assert len(window) <= limit + level.burst


@given(limit=st.integers(1, 1000), attempts=st.integers(1, 50))
def test_who_comes_back_when_told_is_let_in(limit: int, attempts: int) -> None:
    """The time in a refusal is exact: a microsecond earlier is refused, at that moment it is let through."""
    level, rates = RateLimit("tenant", "k", limit), LocalRates()
    for _ in range(level.burst):
        assert rates.admit([level], 0).allowed
    now = 0
    for _ in range(attempts):
        verdict = rates.admit([level], now)
        assert not verdict.allowed
        assert not rates.admit([level], now + verdict.retry - 1).allowed
        now += verdict.retry
        assert rates.admit([level], now).allowed


def test_refusal_takes_nothing_from_any_level() -> None:
    """A request that one level refuses leaves the other as it was."""
    tight, wide, rates = RateLimit("assistant", "a", 1), RateLimit("tenant", "t", 60), LocalRates()
    assert rates.admit([tight, wide], 0).remaining == 0
    for _ in range(5):
        assert not rates.admit([tight, wide], 0).allowed
    assert rates.admit([wide], 0).remaining == wide.burst - 2


def test_remaining_is_the_tightest_levels() -> None:
    """What is left is said of the level that will bind first."""
    first = LocalRates().admit([RateLimit("assistant", "a", 600), RateLimit("tenant", "t", 60)], 0)
    assert (first.level, first.remaining) == (1, 9)


def test_memory_is_bounded() -> None:
    """Tenants that have gone quiet are forgotten."""
    rates = LocalRates()
    for number in range(10_001):
        rates.admit([RateLimit("tenant", f"k{number}", 60)], number * 2_000_000)
    assert len(rates._arrivals) < 10
