"""What is charged is what the provider billed, or the row says why not: generated requests, answers and breaks."""

from __future__ import annotations

import json
import os
import random

import msgspec
import pytest
from scripted_calls import SHAPES, Scripted, request_body

from assistant_crds.gateway_api import Operation, Purpose
from assistant_gateway.errors import GatewayError
from assistant_gateway.ledger.entry import LedgerEntry, decode_entry
from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import Admitted, Remaining
from assistant_gateway.metering.call import Call, Outcome
from assistant_gateway.metering.meter import Meter
from assistant_gateway.metering.metered import Metered
from assistant_gateway.metering.tokenizers import Tokenizers
from assistant_gateway.providers.catalog import Provider, Target, target
from assistant_gateway.providers.price_map import PriceMap
from assistant_gateway.providers.prices import ModelSettings
from assistant_gateway.wire.sse import EventRelay
from assistant_gateway.wire.usage import chunk_of

CALLS = 20_000 if os.environ.get("TEST_LONG") == "1" else 2_000
LIMITED = LimitScope("tenant", "", tokens=10**12, budget=10**12)


class Books(Limiter):
    """Admits everything, and keeps what is settled."""

    def __init__(self) -> None:
        super().__init__(None)
        self.entries: list[LedgerEntry] = []
        self.amounts: list[Amount] = []

    async def reserve(self, terms: LimitSet, call: str, worst: Amount) -> Admitted:
        return Admitted(1_795_000_000_000_000, tuple(Remaining(None, 0, None, None) for _ in terms.limits.levels))

    def settle(self, limits: Limits, call: str, used: Amount, entry: bytes) -> None:
        self.entries.append(decode_entry(entry))
        self.amounts.append(used)


def provider(price: bool) -> Target:
    """Return a provider whose answers may state their cost."""
    settings = ModelSettings(input_per_million="3", output_per_million="15", cached_input_per_million="0.3")  # PRICES
    return target("router", Provider(url="https://openrouter.ai/api/v1", models={"m": settings} if price else {}), None)


def hear(metered: Metered, script: Scripted) -> tuple[Outcome, bool]:
    """Have a call answered; return how it ended, and whether it is free."""
    metered.sent = True
    match script.end:
        case "refused":
            metered.sent = False
            return Outcome.PROVIDER_ERROR, True
        case "time-out":
            return Outcome.PROVIDER_TIMEOUT, False
        case "whole" | "nested" | "another answer":
            metered.body = script.document()
            chunk = chunk_of(metered.body)
            metered.reported = chunk.reported() if chunk is not None else None
            return (Outcome.OK if script.end != "another answer" else Outcome.PROVIDER_ERROR), False
    relay = metered.stream = EventRelay(keep_usage=True, secret=None, limit=2**22)
    text = "w" * min(script.answered, 5000)
    relay.feed(b'data: {"choices":[{"delta":{"content":"' + text.encode() + b'"}}]}\n\n')
    if script.end in {"broken stream", "client gone"}:
        return Outcome.PROVIDER_ERROR if script.end == "broken stream" else Outcome.CLIENT_GONE, False
    relay.feed(b"data: " + script.document() + b"\n\ndata: [DONE]\n\n")
    return Outcome.OK, False


async def test_the_ledger_is_the_providers_bill_or_says_why_not() -> None:
    """Each difference is a row that was estimated or has no price; every other row is equal to the micro-unit."""
    chance, books = random.Random(20_261_128), Books()
    meter = Meter(books, PriceMap(None, ""), Tokenizers(None))
    priced, unpriced = provider(price=True), provider(price=False)
    told = dict.fromkeys(("equal", "estimated", "disputed", "unpriced", "refused"), 0)
    for number in range(CALLS):
        script, limited = Scripted.made(chance), chance.random() < 0.7
        to = priced if limited or chance.random() < 0.8 else unpriced
        terms = LimitSet.of("acme", "t_1", "UTC", [LIMITED] if limited else [], assistant="a")
        call = Call(
            tenant="acme",
            name="a",
            provider="router",
            model="m",
            operation=Operation.CHAT,
            purpose=Purpose.CHAT,
            request_id=str(number),
        )
        body = request_body(chance)
        fields = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}
        try:
            metered = await meter.admit(terms, call, to, fields, embedding=False)
        except GatewayError:
            told["refused"] += 1
            continue
        outcome, free = hear(metered, script)
        meter.settle(metered, outcome, free=free)
        entry, amount, bill = books.entries[-1], books.amounts[-1], script.bill()
        assert len(books.entries) == number + 1 - told["refused"], "one row for each call that was admitted"
        assert amount == Amount(entry.tokens, entry.known_cost or 0), "counters and ledger are told the same"
        if entry.known_cost == bill:
            told["equal"] += 1
        else:
            assert entry.unpriced or entry.source == "estimated", (script, entry)
            told["unpriced" if entry.unpriced else "estimated"] += 1
            if entry.unpriced:
                assert to is unpriced
                assert entry.known_cost is None
        # Held in tokens, and yet more was used: charged in full, and marked.
        if limited and (entry.tokens > entry.held_tokens or entry.cost > entry.held_cost):
            assert entry.disputed
            told["disputed"] += 1
        if entry.source == "reported" and not entry.unpriced:
            assert entry.known_cost == bill, (script, entry)
    assert all(count > CALLS // 100 for name, count in told.items() if name != "refused"), told


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "silent"])
def test_the_scripted_providers_words_are_read_as_it_means_them(shape: str) -> None:
    """The property above would be empty if nothing of a family were understood."""
    script = Scripted(asked=1000, cached=400, answered=100, reasoning=50, shape=shape, end="whole")
    chunk = chunk_of(script.document())
    found = chunk.reported() if chunk is not None else None
    assert found is not None
    assert (found.input, found.cached, found.output) == (1000, 400, 100)
