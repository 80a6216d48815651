"""How long a knowledge base is left alone after failures, and how often a document is tried."""

from __future__ import annotations

from assistant_api.gateway import GatewayError, GatewayUnreachableError
from assistant_api.knowledge import ingestion
from assistant_api.knowledge.dispatcher import MAX_RETRY_DELAY_SECONDS, MIN_RETRY_DELAY_SECONDS, Cooldowns
from assistant_api.knowledge.ingestion import RejectedError, UnavailableError


def test_failures_in_a_row_make_longer_rests() -> None:
    """Each rest is twice as long as the one before, up to a minute."""
    rests, now, delays = Cooldowns(), 0.0, []
    for _ in range(9):
        delays.append(rests.rest("kb", now, 0.0))
        now += delays[-1]
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == MAX_RETRY_DELAY_SECONDS


def test_documents_that_fail_together_are_one_failure() -> None:
    """Four documents at a time that meet the same outage do not make it count four times."""
    rests = Cooldowns()
    for _ in range(4):
        rests.rest("kb", 0.0, 0.0)
    assert rests.next(["kb"], 0.0) == MIN_RETRY_DELAY_SECONDS


def test_a_success_ends_the_rests() -> None:
    """What works again is used again at once."""
    rests = Cooldowns()
    rests.rest("kb", 0.0, 0.0)
    rests.rest("kb", 1.0, 0.0)
    rests.wake("kb")
    assert rests.active(["kb"], 1.0) == ["kb"]
    assert rests.rest("kb", 1.0, 0.0) == MIN_RETRY_DELAY_SECONDS


def test_only_the_failing_knowledge_base_rests() -> None:
    """A model that is away does not keep others waiting."""
    rests = Cooldowns()
    rests.rest("a", 0.0, 0.0)
    assert rests.active(["a", "b"], 0.5) == ["b"]
    assert rests.active(["a", "b"], 1.0) == ["a", "b"]
    assert rests.next(["b"], 0.5) is None


def test_what_the_provider_asks_for_is_honoured() -> None:
    """`Retry-After` may be longer than our own longest rest."""
    assert Cooldowns().rest("kb", 0.0, 300.0) == 300.0


def test_a_failure_that_may_pass_is_waited_for() -> None:
    """Outages and rate limits are asked again, the document's own fault is not."""
    unreachable = GatewayUnreachableError("refused")
    assert 0.8 * 0.5 <= (ingestion._wait(unreachable, 1) or 0) <= 1.2 * 0.5
    assert ingestion._wait(GatewayError(429, "c", "m", 3.0), 1) == 3.0
    assert ingestion._wait(GatewayError(429, "c", "m", 600.0), 1) is None
    assert (ingestion._wait(GatewayError(503, "c", "m"), 3) or 0) >= 0.8 * 2.0
    for status in (400, 401, 403, 404, 422):
        assert ingestion._wait(GatewayError(status, "c", "m"), 1) is None


def test_only_the_documents_own_fault_fails_it() -> None:
    """A token that is refused or a policy that has not arrived are not the document's fault."""
    for status in (400, 413, 422):
        assert isinstance(ingestion._explain(GatewayError(status, "c", "too long")), RejectedError)
    for status in (401, 403, 404, 429, 500, 502, 504):
        assert isinstance(ingestion._explain(GatewayError(status, "c", "m", 9.0)), UnavailableError)
    assert isinstance(ingestion._explain(GatewayUnreachableError("refused")), UnavailableError)
