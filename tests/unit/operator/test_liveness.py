"""The operator asks to be started anew when it no longer does its work."""

from operator_objects import assistant

from assistant_operator.liveness import MISSED_SECONDS, OLDEST_SECONDS, STUCK_SECONDS, Liveness


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def leading(resync=300):
    clock = Clock()
    liveness = Liveness(resync, clock)
    liveness.lead()
    return liveness, clock


def test_a_standby_has_nothing_to_hear():
    """Before it leads nothing is expected of it."""
    clock = Clock()
    liveness = Liveness(300, clock)
    clock.now = 10_000
    assert liveness.problem(0) == ""


def test_silence_beyond_two_resyncs_is_a_fault():
    """Each list counts as hearing; when even lists fail for so long, something is stuck."""
    liveness, clock = leading()
    clock.now = 650
    assert liveness.problem(0) == ""
    clock.now = 661
    assert "nothing was heard" in liveness.problem(0)
    liveness.heard()
    assert liveness.problem(0) == ""


def test_a_tenant_that_waits_too_long_is_a_fault():
    """A queue that does not move is a fault, however lively the watches are."""
    liveness, _ = leading()
    assert liveness.problem(OLDEST_SECONDS - 1) == ""
    assert "waited" in liveness.problem(OLDEST_SECONDS + 1)


def test_a_change_that_only_lists_show_is_a_fault():
    """A watch that went silent shows when lists a minute apart have a version of which it never told."""
    liveness, clock = leading()
    resource = assistant()
    liveness.seen(resource)
    liveness.listed([resource])
    assert liveness.problem(0) == ""
    changed = {**resource, "metadata": {**resource["metadata"], "generation": 2}}
    liveness.listed([changed])
    clock.now += MISSED_SECONDS - 1
    liveness.listed([changed])
    assert liveness.problem(0) == ""
    clock.now += 1
    liveness.listed([changed])
    assert "acme/support" in liveness.problem(0)


def test_an_event_that_arrives_after_the_list_is_in_time():
    """Between a list and the event of the same change there may be a moment."""
    liveness, clock = leading()
    resource = assistant()
    liveness.listed([resource])
    liveness.seen(resource)
    for _ in range(2):
        clock.now += MISSED_SECONDS
        liveness.listed([resource])
    assert liveness.problem(0) == ""


def test_a_resource_that_is_deleted_and_made_again_is_another_one():
    """What is gone is forgotten."""
    liveness, _ = leading()
    liveness.seen(assistant())
    liveness.gone(assistant())
    liveness.listed([assistant()])
    assert liveness.problem(0) == ""


def test_a_slow_operator_is_not_started_anew():
    """As long as runs end there is progress, which a new start would lose."""
    liveness, clock = leading()
    liveness.worked()
    assert liveness.problem(OLDEST_SECONDS + 1) == ""
    clock.now = STUCK_SECONDS + 1
    assert "no run ends" in liveness.problem(OLDEST_SECONDS + 1)
    liveness.worked()
    assert liveness.problem(OLDEST_SECONDS + 1) == ""


def test_who_stands_by_again_expects_nothing():
    """After a lost Lease another operator works; what the watches told in that term is of no interest."""
    liveness, clock = leading()
    liveness.rest()
    clock.now = 10_000
    assert liveness.problem(OLDEST_SECONDS + 1) == ""
    liveness.lead()
    assert liveness.problem(0) == ""
