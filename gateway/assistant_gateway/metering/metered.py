"""One call with what it holds, and what was heard of its answer: what it used, and what the ledger says of it."""

from __future__ import annotations

import operator
import os
import re
import time
from dataclasses import dataclass, field

import msgspec

from assistant_gateway.ledger.entry import LedgerEntry, encode_entry, former_name
from assistant_gateway.limits.limit_scope import Amount
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.metering import bounds, lengths
from assistant_gateway.metering.call import Call, Outcome
from assistant_gateway.providers.catalog import Target
from assistant_gateway.providers.rates import Bill, Price
from assistant_gateway.wire.completion_text import CompletionText, estimate
from assistant_gateway.wire.counts import MOST_TOKENS
from assistant_gateway.wire.decoding import is_one_of
from assistant_gateway.wire.fields import Fields
from assistant_gateway.wire.sse import EventRelay
from assistant_gateway.wire.usage import DETAILS, Usage, charged

NOTHING = Amount(0, 0)
_ANYTHING = Usage(input=MOST_TOKENS, output=MOST_TOKENS)
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')
_TIER = re.compile(rb'"service_tier"\s*:\s*"([^"\\]{1,32})"')
_SIZE = re.compile(rb'"search_context_size"\s*:\s*"(low|medium|high)"')
# Members of a request with which the provider searches the web, and charges for it.
_SEARCHES = ("web_search_options", "web_search", "search_parameters", "plugins")
_NOT_ASKED = frozenset({b"null", b"false", b"[]"})

_details_of = operator.attrgetter(*DETAILS)


@dataclass(slots=True)
class Metered:
    """One call with what it holds, and what was heard of its answer."""

    call: Call
    terms: LimitSet
    fields: Fields
    embedding: bool
    target: Target
    price: Price | None
    headers: dict[str, str]
    id: str = field(default_factory=lambda: os.urandom(16).hex())
    started: int = field(default_factory=lambda: time.time_ns() // 1000)
    held: Usage | None = None  # None: no limit needs to know the worst case
    worst: Amount = NOTHING
    sent: bool = False  # the provider may have begun to work
    stream: EventRelay | None = None
    reported: Usage | None = None
    body: bytes = b""
    asked_tier: str = ""  # the dearer tier that was asked for
    tier: str = ""  # of the processing, as the answer names it beside its usage

    def used(self, outcome: Outcome, *, free: bool) -> Usage:
        """Return what the call is charged; `free`: the provider said no, or never heard of it."""
        if free or not self.sent:
            return Usage()
        held = self.held or _ANYTHING
        said = self.reported or (self.stream.usage if self.stream is not None else None)
        if said is not None and self.tier and not said.tier:
            said = msgspec.structs.replace(said, tier=self.tier)
        if said is not None and said.input > 0 and (said.output > 0 or self.embedding):
            return charged(said, Usage(), held, trusted=not self.target.own)
        prompt = self.held.input if self.held is not None else self.bound().tokens
        if self.embedding:
            return charged(said, Usage(input=prompt), held, trusted=not self.target.own)
        hidden = self._allowed_output() if self.price is not None and self.price.reasons else 0
        if self.stream is not None:
            text = self.stream.completion_text.size
        elif outcome is Outcome.OK:
            written = CompletionText()
            written.add_answer(self.body)
            text = written.size
        else:  # nobody saw the answer, but it may have been written in full
            text, hidden = 0, self._allowed_output()
        return charged(said, estimate(prompt, text, hidden_output=hidden), held, trusted=not self.target.own)

    def _allowed_output(self) -> int:
        if self.held is not None:
            return self.held.output
        return (lengths.asked(self.fields) or 0) * lengths.answers(self.fields)

    def bound(self) -> bounds.Bound:
        """Return the most tokens that the prompt can have."""
        images = self.price.max_image_tokens if self.price is not None else None
        if self.embedding:
            return bounds.embedding_bound(self.fields)
        return bounds.chat_bound(self.fields, self.call.model, images)

    def note_answer(self, data: bytes) -> None:
        """Read from an answer, or from the first event of one, which model it is from and how it was processed."""
        self.call.answered = answered_by(data) or ""
        if (found := _TIER.search(data)) is not None:
            self.tier = found[1].decode(errors="replace")

    def searches(self) -> tuple[bool, str | None]:
        """Return whether the request asked for a search of the web, and how much of what it finds is to be read."""
        asked = [name for name in _SEARCHES if name in self.fields and not is_one_of(self.fields[name], _NOT_ASKED)]
        found = _SIZE.search(memoryview(self.fields["web_search_options"])) if "web_search_options" in asked else None
        return bool(asked), found[1].decode() if found is not None else None

    def entry(self, used: Usage, bill: Bill, outcome: Outcome) -> bytes:
        """Return what the ledger says of it."""
        call, now, price = self.call, time.perf_counter(), self.price
        rate = price.rate_of(used) if price is not None else None
        first = call.first_byte
        details = _details_of(used)  # nearly always zeros
        return encode_entry(
            LedgerEntry(
                call=self.id,
                tenant=call.tenant,
                name=call.name,
                scope=self.terms.assistant,
                operation=call.operation,
                purpose=call.purpose,
                streamed=call.streamed,
                road=former_name(call.operation, call.purpose, streamed=call.streamed),
                request=call.request_id,
                user=call.user,
                provider=call.provider,
                model=call.model,
                answered=call.answered or None,
                input=used.input,
                cached=used.cached,
                cache_write=used.cache_write,
                output=used.output,
                reasoning=used.reasoning,
                source=used.source.value,
                disputed=used.disputed,
                price_input=rate.input if rate is not None else None,
                price_output=rate.output if rate is not None else None,
                price_source=bill.source,
                currency=bill.currency,
                cost=bill.cost or 0,
                unpriced=bill.unpriced or None,
                tier=used.tier or None,
                details={name: count for name, count in zip(DETAILS, details, strict=True) if count}
                if any(details)
                else None,
                held_tokens=self.worst.tokens,
                held_cost=self.worst.cost,
                started=self.started,
                duration=int((now - call.started) * 1e6),
                first_byte=None if first is None else int((first - call.started) * 1e6),
                outcome=outcome.value,
            )
        )


def answered_by(data: bytes) -> str | None:
    """Return the model that an answer, or its first event, says it is from."""
    found = _MODEL.search(data)
    return found[1].decode(errors="replace") if found is not None else None
