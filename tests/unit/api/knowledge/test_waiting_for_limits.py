"""What a document does when the model's calls are refused: it waits in the queue and says for what."""

from __future__ import annotations

import pytest

from assistant_api.gateway import GatewayError
from assistant_api.knowledge import ingestion
from assistant_api.knowledge.ingestion import MAX_LIMIT_WAIT_SECONDS, RejectedError, UnavailableError

MONTH = 30 * 86_400.0


@pytest.mark.parametrize(
    ("status", "code", "retry_after", "wait"),
    [
        (429, "budget_exhausted", MONTH, MAX_LIMIT_WAIT_SECONDS),
        (429, "tokens_exhausted", 30.0, 30.0),
        (429, "budget_exhausted", None, MAX_LIMIT_WAIT_SECONDS),
        (403, "price_unknown", None, MAX_LIMIT_WAIT_SECONDS),
    ],
)
def test_a_document_looks_every_minute_whether_its_limit_was_raised(
    status: int, code: str, retry_after: float | None, wait: float
) -> None:
    """Not only in the next month; and it does not keep a worker busy meanwhile."""
    error = GatewayError(status, code, "The tenant has nothing left.", retry_after)
    assert ingestion._wait(error, 1) is None
    explained = ingestion._explain(error)
    assert isinstance(explained, UnavailableError)
    assert (explained.code, explained.retry_after) == (code, wait)
    assert "The tenant has nothing left." in explained.message


def test_a_rate_is_waited_for_and_what_cannot_be_taken_is_refused() -> None:
    """Seconds are spent waiting; a request that the model does not take fails the document."""
    assert ingestion._wait(GatewayError(429, "rate_limit_exceeded", "m", 2.0), 1) == 2.0
    assert isinstance(ingestion._explain(GatewayError(400, "not_limitable", "m")), RejectedError)
    limits = ingestion._explain(GatewayError(503, "limits_unavailable", "m", 1.0))
    assert isinstance(limits, UnavailableError)
    assert limits.code == "embedding_unavailable"
