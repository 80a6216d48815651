"""Whole answers on their way: large ones are looked at in pieces, and what they say of themselves is found."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from assistant_gateway.calls.relay import Relay, Sizes
from assistant_gateway.capacity.fairness import Turns
from assistant_gateway.errors import GatewayError
from assistant_gateway.wire.decoding import LARGEST_DECODED

SECRET = b"sk-0123456789"
PART = 50_000


class Pieces(Turns):
    """Counts."""

    def __init__(self) -> None:
        super().__init__(1)
        self.taken = 0

    async def take(self, tenant: str) -> None:
        """Count a turn."""
        self.taken += 1
        await super().take(tenant)


def chat(content: str, **more: Any) -> bytes:
    """Return a provider's answer."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 9}
    return json.dumps({"model": "m-1", "choices": [choice], "usage": usage, "service_tier": "flex", **more}).encode()


async def passed(raw: bytes, *, embedding: bool = False) -> tuple[Any, Any, int]:
    """Pass an answer on; return it, what was heard of it, and how many pieces were looked at."""
    parts = [raw[at : at + PART] for at in range(0, len(raw), PART)]

    async def following() -> bytes:
        return parts.pop(0) if parts else b""

    pieces, noted = Pieces(), []
    response: Any = SimpleNamespace(complete=True, next=following)
    call = SimpleNamespace(tenant="one", note_first_byte=lambda: None)
    metered: Any = SimpleNamespace(call=call, embedding=embedding, note_answer=noted.append, noted=noted)
    target: Any = SimpleNamespace(secret=SECRET, provider="p", own=False)
    request: Any = {}
    relay = Relay(Sizes(32 * 2**20, 2**20, 2**20), pieces)
    result = await relay.answer(request, response, target, metered, {})
    answer: Any = result.answer
    return answer, metered, pieces.taken


@pytest.mark.parametrize("letters", [10, 3_000_000])
async def test_what_an_answer_says_of_itself_is_found_at_any_size(letters: int) -> None:
    """Its usage, its model and its tier; and the platform's key is not in what goes out."""
    raw = chat("x" * letters + SECRET.decode())
    answer, metered, taken = await passed(raw)
    assert (metered.reported.input, metered.reported.output) == (7, 9)
    assert b'"m-1"' in metered.noted[0]
    assert b'"flex"' in metered.noted[0]
    assert bytes(answer.body) == raw.replace(SECRET, b"***")
    assert taken >= len(raw) // 131_072 if len(raw) > LARGEST_DECODED else taken == 0
    assert len(metered.noted[0]) <= LARGEST_DECODED


async def test_large_embeddings_are_an_answer() -> None:
    """With their usage."""
    vectors = [{"index": number, "embedding": [0.125] * 1000} for number in range(100)]
    raw = json.dumps({"object": "list", "data": vectors, "usage": {"prompt_tokens": 3}}).encode()
    answer, metered, _ = await passed(raw, embedding=True)
    assert (metered.reported.input, bytes(answer.body)) == (3, raw)


@pytest.mark.parametrize(
    "raw",
    [
        chat("x" * 1_000_000)[:-1],
        b"<html>" + b"x" * 1_000_000,
        json.dumps({"choices": "x" * 1_000_000}).encode(),
        chat("x" * 1_000_000, error={"message": "no more", "code": 500}),
    ],
    ids=["cut off", "a page", "no choices", "an error beside them"],
)
async def test_a_large_answer_that_is_none_is_refused(raw: bytes) -> None:
    """As a small one is."""
    with pytest.raises(GatewayError) as refused:
        await passed(raw)
    assert refused.value.status == 502
