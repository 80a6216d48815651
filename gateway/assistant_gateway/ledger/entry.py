"""What the ledger says of one call. The settling call hands it to Redis's stream; from there it goes to Postgres.

Fields are only ever added: entries of an older gateway are read by a newer drain, and the other way round.
"""

from __future__ import annotations

import msgspec

from assistant_crds.gateway_api import Operation, Purpose


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call. Money in micro-units of `currency`, prices per million tokens, times in microseconds."""

    call: str  # the hold's id, made by the gateway; unique, unlike `request`
    tenant: str  # namespace
    name: str  # the assistant's, or the knowledge base's for embeddings
    scope: str = ""  # the assistant on whose limits it counted; empty: on the tenant's alone
    operation: str = ""
    purpose: str = ""
    streamed: bool = False
    road: str = ""  # see `former_name`
    request: str  # x-request-id, which the caller may choose
    user: str | None = None
    provider: str
    model: str  # asked
    answered: str | None = None  # the model that says it answered
    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    source: str  # of the tokens: reported, estimated
    disputed: bool = False
    price_input: int | None = None  # None: nobody knows the price, or the provider states the cost
    price_output: int | None = None
    price_source: str = ""
    currency: str = "USD"
    cost: int = 0
    unpriced: str | None = None  # what has no price, in words; the cost is without it
    tier: str | None = None  # of the processing, as the answer names it
    details: dict[str, int] | None = None  # counts that have no field of their own: see `usage.Usage`
    held_tokens: int = 0
    held_cost: int = 0
    started: int  # since 1970
    duration: int
    first_byte: int | None = None
    outcome: str

    @property
    def known_cost(self) -> int | None:
        """The cost, None where no part of it is known."""
        return self.cost if self.price_source or not self.unpriced else None

    @property
    def tokens(self) -> int:
        """What limits in tokens count."""
        return self.input + self.output


encode_entry = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(LedgerEntry).decode
# Operation, purpose and whether it was streamed, by the one word that the release before had for them.
_FORMER = {
    "chat": (Operation.CHAT, Purpose.CHAT, False),
    "stream": (Operation.CHAT, Purpose.CHAT, True),
    "ingest": (Operation.EMBEDDINGS, Purpose.INGEST, False),
    "search": (Operation.EMBEDDINGS, Purpose.SEARCH, False),
    "embedding": (Operation.EMBEDDINGS, Purpose.OTHER, False),
}
_FORMER_NAMES = {meaning: name for name, meaning in _FORMER.items()}


def former_name(operation: Operation, purpose: Purpose, *, streamed: bool) -> str:
    """Return the word by which a gateway of the release before knows a call: it refuses entries without one.

    During an upgrade both releases drain the same streams. Goes with the release after this one (decision 75).
    """
    return _FORMER_NAMES.get((operation, purpose, streamed), operation)


def decode_entry(data: bytes) -> LedgerEntry:
    """Return an entry, also one that a gateway of the release before wrote.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: it is not an entry.
    """
    entry = _decode(data)
    if entry.operation and entry.purpose:
        return entry
    if entry.road not in _FORMER:
        raise msgspec.ValidationError("Object missing required fields `operation` and `purpose`")
    operation, purpose, streamed = _FORMER[entry.road]
    return msgspec.structs.replace(entry, operation=operation, purpose=purpose, streamed=streamed)
