"""Many events that come together are looked at in pieces, and those that are looked into are paced by their cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from assistant_gateway.calls.streaming import LOOK_BYTES, PIECE_BYTES, Stream
from assistant_gateway.capacity.fairness import Pace, Turns
from assistant_gateway.wire.sse import EventRelay

ODD = b'data: {"choices":[{}]}\n\n'
PLAIN = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'


class Pieces(Turns):
    """Counts."""

    taken = 0

    async def take(self, tenant: str) -> None:
        """Count a turn."""
        self.taken += 1
        await super().take(tenant)


class Paced(Pace):
    """Sums up what is taken."""

    taken = 0

    def take(self, tenant: str, amount: int, now: float) -> float:
        """Note how much is taken."""
        self.taken += amount
        return super().take(tenant, amount, now)


async def passed(*arrivals: bytes) -> tuple[bytes, int, int, list[int]]:
    """Feed what arrives; return what goes on, the turns and the pace that it took, and its pieces' sizes."""
    left = list(arrivals)

    async def following(_straight: Any = None) -> bytes:
        return left.pop(0) if left else b""

    relay = EventRelay(keep_usage=False, secret=None, limit=2**20)
    response: Any = SimpleNamespace(next=following)
    nothing: Any = None
    metered: Any = SimpleNamespace(call=SimpleNamespace(tenant="one"))
    pace, pieces = Paced(2**22, 2**23), Pieces(1)
    stream = Stream(nothing, response, relay, nothing, metered, nothing, nothing, 2**26, pace, pieces)
    found, sizes = b"", []
    while data := await stream._next():
        sizes.append(len(data))
        found += stream._feed(data)
    return found, pieces.taken, pace.taken, sizes


async def test_many_events_together_are_looked_at_in_pieces() -> None:
    """Between two of them other tenants have their turn; nothing of them is lost."""
    block = ODD * 10_000
    found, turns, _, sizes = await passed(PLAIN, block)
    assert found.count(b'"choices"') == 10_001
    assert max(sizes) <= PIECE_BYTES
    assert turns >= len(block) // PIECE_BYTES


@pytest.mark.parametrize(
    "block", [PLAIN, PLAIN * 20, b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 50_000]
)
async def test_what_comes_one_after_the_other_waits_for_nobody(block: bytes) -> None:
    """A few events, and a large one, are one piece."""
    _, turns, _, sizes = await passed(PLAIN, block)
    assert (turns, sizes) == (0, [len(PLAIN), len(block)])


async def test_events_that_have_to_be_looked_into_are_paced_by_their_cost() -> None:
    """They take more of their tenant's pace than their bytes; plain ones do not."""
    _, _, odd, _ = await passed(PLAIN, *[ODD] * 2000)
    _, _, plain, _ = await passed(PLAIN, *[PLAIN] * 2000)
    assert odd >= 1900 * (len(ODD) + LOOK_BYTES)
    assert plain <= 2010 * len(PLAIN) + 2 * LOOK_BYTES
