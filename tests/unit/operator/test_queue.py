"""The work queue: what runs when, never twice at once, never lost."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from assistant_operator.queue import (
    BACKOFF_CAP,
    KEY_BURST,
    KEY_RATE,
    UNSTEADY_AFTER,
    URGENT_SECONDS,
    Result,
    Schedule,
    WorkQueue,
)


def schedule(**changes):
    return Schedule(jitter=lambda: 0.5, **changes)


def test_duplicates_are_merged():
    """A key that is asked for three times before it runs, runs once."""
    plan = schedule()
    for _ in range(3):
        plan.add("a", 0)
    assert [plan.take(0), plan.take(0)] == ["a", None]


def test_a_request_during_a_run_causes_one_more_run():
    """What happens while a key runs is looked at afterwards: one run, however many requests."""
    plan = schedule()
    plan.add("a", 0)
    assert plan.take(0) == "a"
    plan.add("a", 1)
    plan.add("a", 2)
    assert plan.take(2) is None
    plan.done("a", Result(), 3)
    assert [plan.take(3), plan.take(3)] == ["a", None]


def test_an_earlier_request_wins_over_a_later_one():
    """A delayed request neither delays nor doubles one that is due sooner."""
    plan = schedule()
    plan.add("a", 0, delay=60)
    plan.add("a", 1)
    plan.add("a", 1, delay=5)
    assert plan.take(1) == "a"
    plan.done("a", Result(), 2)
    assert plan.take(100) is None


def test_keys_run_in_the_order_in_which_they_fell_due():
    """No tenant overtakes another."""
    plan = schedule()
    for key in "bca":
        plan.add(key, 0)
    assert [plan.take(1) for _ in range(3)] == ["b", "c", "a"]


def test_a_changed_key_goes_before_all_others_for_a_while():
    """After a restart asks for every tenant, a change and the runs that follow from it do not wait for them."""
    plan = schedule()
    for number in range(100):
        plan.add(str(number), 0)
    plan.add("50", 1, urgent=True)  # also one that waits already
    plan.add("new", 1, urgent=True)
    assert [plan.take(1), plan.take(1), plan.take(1)] == ["50", "new", "0"]
    plan.done("new", Result(changed=True, requeue=True), 2)
    plan.add("new", 2)
    assert [plan.take(2), plan.take(2)] == ["new", "1"]
    plan.done("new", Result(), 3)
    plan.add("new", 1 + URGENT_SECONDS)
    assert plan.take(1 + URGENT_SECONDS) == "2"


def test_a_key_that_is_changed_without_end_leaves_room_for_the_others():
    """Going first does not raise the rate of runs that a key may have."""
    plan, now, runs = schedule(), 0.0, 0
    for number in range(20):
        plan.add(str(number), now)
    others = []
    while now < 10:
        plan.add("loud", now, urgent=True)
        if (key := plan.take(now)) is not None:
            plan.done(key, Result(), now)
            runs += key == "loud"
            others += [] if key == "loud" else [key]
        now += 0.1
    assert runs <= KEY_BURST + KEY_RATE * 10 + 1
    assert len(others) == 20


def test_failures_back_off_to_a_cap_under_ten_seconds():
    """Retries get rarer, but what is mended is seen within 15 seconds however long it was broken."""
    plan, now, waits = schedule(), 0.0, []
    plan.add("a", now)
    for _ in range(12):
        assert plan.take(now) == "a"
        plan.done("a", Result(requeue=True), now)
        waits.append(plan.next_due(now))
        now += waits[-1]
    assert waits[0] < 0.5
    assert waits == sorted(waits)
    assert waits[-1] == BACKOFF_CAP
    assert BACKOFF_CAP * 1.25 <= 10


def test_progress_starts_the_back_off_anew():
    """A run that changed something is looked at again soon: what it changed is about to take effect."""
    plan, now = schedule(), 0.0
    plan.add("a", now)
    for _ in range(8):
        plan.take(now)
        plan.done("a", Result(requeue=True), now)
        now += plan.next_due(now)
    plan.take(now)
    plan.done("a", Result(requeue=True, changed=True), now)
    assert plan.next_due(now) < 0.5


def test_an_event_does_not_wait_for_the_back_off():
    """A request from outside runs at once, whatever the failures before."""
    plan = schedule()
    plan.add("a", 0)
    for now in range(6):
        plan.take(now * 10)
        plan.done("a", Result(requeue=True), now * 10)
    plan.add("a", 50.1)
    assert plan.take(50.1) == "a"


def test_later_asks_for_one_run_at_a_fixed_time():
    """A settled key may ask to be looked at again."""
    plan = schedule()
    plan.add("a", 0)
    plan.take(0)
    plan.done("a", Result(requeue_after=60), 0)
    assert plan.take(59) is None
    assert plan.take(60) == "a"


def test_a_key_that_never_holds_still_is_held_back():
    """When every run writes, in quick succession, somebody writes against us: runs get rare, also for events."""
    plan, now, runs = schedule(), 0.0, 0
    while now < 120:
        plan.add("a", now)
        if plan.take(now) == "a":
            runs += 1
            plan.done("a", Result(changed=True), now)
        now += 0.1
    assert UNSTEADY_AFTER <= runs < UNSTEADY_AFTER + 10


def test_events_in_a_loop_cost_a_bounded_rate_of_runs_and_no_neighbour_waits():
    """A tenant that touches what wakes the operator, without end, gets a burst and then a run every other second."""
    plan, now, runs = schedule(), 0.0, 0
    while now < 300:
        plan.add("loud", now)
        while (key := plan.take(now)) is not None:
            assert key == "loud"
            runs += 1
            plan.done(key, Result(), now)
        if int(now) != int(now - 0.05) and int(now) % 10 == 5:
            plan.add("quiet", now)
            assert plan.take(now) == "quiet"
            plan.done("quiet", Result(), now)
        now += 0.05
    assert runs <= KEY_BURST + KEY_RATE * 300 + 1
    # What was asked for last is not lost.
    plan.add("loud", now)
    now += plan.next_due(now) + 0.001
    assert plan.take(now) == "loud"


def test_keys_that_may_run_freely_are_forgotten():
    """What is remembered of keys does not grow with the number of keys that ever were."""
    plan = schedule(rate=1e6, burst=10**6)
    for number in range(5000):
        plan.add(str(number), number)
        assert plan.take(number) == str(number)
        plan.done(str(number), Result(), number)
    assert len(plan._spent) < 1200


def test_writes_now_and_then_are_no_unsteadiness():
    """A tenant whose documents are being uploaded writes its counts every few seconds, and is never held back."""
    plan, now = schedule(), 0.0
    for _ in range(3 * UNSTEADY_AFTER):
        plan.add("a", now)
        assert plan.take(now) == "a"
        plan.done("a", Result(changed=True), now)
        now += 15


def test_starts_are_limited_over_all_keys():
    """After a burst no more runs start than the rate allows, and `next_due` says when the next may."""
    plan = schedule(rate=10, burst=5)
    for number in range(30):
        plan.add(str(number), 0)
    started = [plan.take(0) for _ in range(30)]
    assert sum(key is not None for key in started) == 5
    assert 0 < plan.next_due(0) <= 0.1
    assert plan.take(0.1) is not None
    assert plan.take(0.1) is None


def test_depth_and_age_count_what_is_due():
    """Keys that wait for their time are not late; the oldest is as old as its oldest unanswered request."""
    plan = schedule()
    plan.add("a", 0)
    plan.add("a", 5)
    plan.add("b", 0, delay=100)
    assert plan.depth(10) == 1
    assert plan.oldest(10) == 10
    plan.take(10)
    assert plan.oldest(10) == 0


class Scheduling(RuleBasedStateMachine):
    """Any order of requests, runs and outcomes."""

    def __init__(self):
        super().__init__()
        self.plan = Schedule(rate=1000, burst=1000, jitter=lambda: 0.5)
        self.now = 0.0
        self.running = set()
        self.owed = set()

    @rule(key=st.sampled_from("abc"), delay=st.sampled_from([0.0, 0.0, 3.0]), urgent=st.booleans())
    def ask(self, key, delay, urgent):
        self.plan.add(key, self.now, delay, urgent=urgent)
        self.owed.add(key)

    @rule(seconds=st.floats(0.01, 20))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def take(self):
        key = self.plan.take(self.now)
        if key is not None:
            assert key not in self.running, "a key runs twice at once"
            self.running.add(key)
            self.owed.discard(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), requeue=st.booleans(), changed=st.booleans())
    def end(self, data, requeue, changed):
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(key)
        self.plan.done(key, Result(requeue=requeue, changed=changed), self.now)
        if requeue:
            self.owed.add(key)

    @invariant()
    def nothing_is_lost(self):
        if self.owed - self.running:
            assert self.plan.next_due(self.now) is not None, "a request was lost"

    def teardown(self):
        """Let time pass: everything that is owed runs."""
        for key in sorted(self.running):
            self.plan.done(key, Result(), self.now)
        for _ in range(100):
            wait = self.plan.next_due(self.now)
            if wait is None:
                break
            self.now += wait + 0.001
            while (key := self.plan.take(self.now)) is not None:
                self.owed.discard(key)
                self.plan.done(key, Result(), self.now)
        assert not self.owed


Scheduling.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestScheduling = Scheduling.TestCase


async def test_keys_run_side_by_side_up_to_the_limit():
    """Different tenants are worked on at once, not more of them than there are workers."""
    queue, active, most, seen = WorkQueue(3), 0, 0, []

    async def handler(key):
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.02)
        active -= 1
        seen.append(key)
        return Result()

    task = asyncio.create_task(queue.run(handler))
    for number in range(9):
        queue.add(str(number))
    async with asyncio.timeout(5):
        while len(seen) < 9:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await queue.stop(1)
    await task
    assert most == 3


async def test_an_exception_is_a_failure_to_be_retried():
    """A run that raises neither ends the queue nor is forgotten."""
    queue, tries = WorkQueue(2), []

    async def handler(key):
        tries.append(key)
        if len(tries) == 1:
            raise RuntimeError("once")
        return Result()

    task = asyncio.create_task(queue.run(handler))
    queue.add("a")
    async with asyncio.timeout(5):
        while len(tries) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await queue.stop(1)
    await task


async def test_stop_lets_running_runs_end_and_starts_no_more():
    """Within the grace given to it a run ends by itself; what waits does not begin."""
    queue, ended = WorkQueue(1), []

    async def handler(key):
        await asyncio.sleep(0.05)
        ended.append(key)
        return Result()

    task = asyncio.create_task(queue.run(handler))
    queue.add("a")
    queue.add("b")
    await asyncio.sleep(0.01)
    await queue.stop(1)
    await task
    assert ended == ["a"]


async def test_stop_without_grace_cancels():
    """Who lost the lease may not finish: the run is cut off."""
    queue, ended = WorkQueue(1), []

    async def handler(key):
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            ended.append("cut off")
            raise
        return Result()

    task = asyncio.create_task(queue.run(handler))
    queue.add("a")
    await asyncio.sleep(0.01)
    await queue.stop(0)
    await task
    assert ended == ["cut off"]
