"""When a breaker opens, when it lets a trial through, and what closes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.providers.breaker import LONGEST_OPEN, Breaker, BreakerSettings, State


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


SETTINGS = BreakerSettings(failure_share=0.5, min_calls=4, window_seconds=20, open_seconds=10)


def made(settings: BreakerSettings = SETTINGS) -> tuple[Breaker, Clock]:
    """Return a breaker and its clock."""
    clock = Clock()
    return Breaker(settings, clock), clock


def call(breaker: Breaker, failed: bool | None) -> bool:
    """Make a call and end it; return whether that opened the breaker."""
    assert breaker.blocked() is None
    return breaker.leave(failed=failed, trial=breaker.enter())


def test_opens_at_the_share_and_not_before_the_minimum() -> None:
    """Three failures of three say too little; two of four are half."""
    breaker, _ = made()
    assert [call(breaker, True) for _ in range(3)] == [False] * 3
    assert breaker.state is State.CLOSED
    assert call(breaker, True)
    assert breaker.state is State.OPEN
    other, _ = made()
    assert [call(other, failed) for failed in (False, False, True, True)] == [False, False, False, True]


def test_below_the_share_it_stays_closed() -> None:
    """A provider that fails now and then is asked on."""
    breaker, _ = made()
    assert not any(call(breaker, number % 3 == 0) for number in range(1, 100))
    assert breaker.state is State.CLOSED


def test_what_says_nothing_is_not_counted() -> None:
    """A client that goes away is no failure and no success."""
    breaker, _ = made()
    for _ in range(100):
        call(breaker, None)
    assert breaker.counted == (0, 0)


def test_failures_age() -> None:
    """What happened before the window does not count."""
    breaker, clock = made()
    for _ in range(3):
        call(breaker, True)
    clock.now += 21
    assert not call(breaker, True)
    assert breaker.counted == (1, 1)
    clock.now += 11  # the other half of the window still knows of it
    assert not call(breaker, True)
    assert breaker.counted == (2, 2)


def opened() -> tuple[Breaker, Clock]:
    """Return a breaker that has just opened."""
    breaker, clock = made()
    for _ in range(4):
        call(breaker, True)
    return breaker, clock


def test_open_until_one_trial_may_go() -> None:
    """While it is open nothing goes through; then one call, and no second one beside it."""
    breaker, clock = opened()
    assert breaker.blocked() == 10
    clock.now += 10
    assert breaker.state is State.HALF_OPEN
    assert breaker.blocked() is None
    assert breaker.enter()
    assert breaker.blocked() == 1


def test_good_trial_closes_with_a_clean_sheet() -> None:
    """One success and the past is forgotten."""
    breaker, clock = opened()
    clock.now += 10
    assert not call(breaker, False)
    assert (breaker.state, breaker.counted) == (State.CLOSED, (0, 0))


def test_each_bad_trial_doubles_the_pause_up_to_a_bound() -> None:
    """A provider that stays away is asked ever less often."""
    breaker, clock = opened()
    pauses = []
    for _ in range(6):
        clock.now += breaker.blocked() or 0
        assert call(breaker, True)
        pauses.append(breaker.blocked())
    assert pauses == [20, 40, 80, 10 * LONGEST_OPEN, 10 * LONGEST_OPEN, 10 * LONGEST_OPEN]
    clock.now += 10 * LONGEST_OPEN
    call(breaker, False)
    for _ in range(4):
        call(breaker, True)
    assert breaker.blocked() == 10


def test_trial_that_nobody_saw_the_end_of_is_made_again() -> None:
    """A client that hangs up on the trial neither opens nor closes, and keeps nobody out."""
    breaker, clock = opened()
    clock.now += 10
    call(breaker, None)
    assert breaker.state is State.HALF_OPEN
    assert breaker.blocked() is None


def test_calls_from_before_it_opened_neither_close_nor_prolong_it() -> None:
    """Only the trial decides."""
    breaker, clock = opened()
    breaker.leave(failed=False, trial=False)
    assert breaker.state is State.OPEN
    clock.now += 9
    breaker.leave(failed=True, trial=False)
    assert breaker.blocked() == 1


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.floats(0, 30)), max_size=60))
def test_never_stuck(steps: list[tuple[bool | None, float]]) -> None:
    """Whatever happens, within the longest pause a call goes through again."""
    breaker, clock = made()
    for failed, seconds in steps:
        clock.now += seconds
        if breaker.blocked() is None:
            breaker.leave(failed=failed, trial=breaker.enter())
    clock.now += SETTINGS.open_seconds * LONGEST_OPEN
    assert breaker.blocked() is None


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_share_is_of_the_calls(share: float) -> None:
    """The share is the settings'."""
    breaker, _ = made(BreakerSettings(failure_share=share, min_calls=10))
    for _ in range(9):
        call(breaker, False)
    assert call(breaker, True) is (share == 0.1)
