"""From an entry of Redis's stream to a row of the ledger, or to what is set aside because nobody can read it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from assistant_gateway.ledger.entry import decode_entry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST = 2**63 - 1  # of Postgres' bigint

# Every column of `ledger_entries`, with its type, in the order of `Row.values`.
COLUMNS = {
    "at": "timestamptz",
    "call": "text",
    "tenant_key": "text",
    "tenant": "text",
    "name": "text",
    "scope": "text",
    "request": "text",
    "user_id": "text",
    "provider": "text",
    "model": "text",
    "answered": "text",
    "input": "bigint",
    "cached": "bigint",
    "cache_write": "bigint",
    "output": "bigint",
    "reasoning": "bigint",
    "source": "text",
    "disputed": "boolean",
    "price_input": "bigint",
    "price_output": "bigint",
    "price_source": "text",
    "currency": "text",
    "cost": "bigint",
    "held_tokens": "bigint",
    "held_cost": "bigint",
    "started": "timestamptz",
    "duration_us": "bigint",
    "first_byte_us": "bigint",
    "outcome": "text",
    "stream_id": "text",
    "unpriced": "text",
    "tier": "text",
    "details": "text",
    "operation": "text",
    "purpose": "text",
    "streamed": "boolean",
}


class Row(msgspec.Struct, frozen=True):
    """An entry as Postgres takes it; `values` are in the order of `COLUMNS`."""

    stream_id: str
    at: datetime
    call: str
    scope: str
    tokens: int
    cost: int
    values: tuple[Any, ...]
    fields: Mapping[bytes, bytes]


class Reject(msgspec.Struct, frozen=True):
    """An entry that cannot become a row, whole, and why."""

    stream_id: str
    reason: str
    fields: bytes


def moment(microseconds: int) -> datetime:
    """Return an instant given in microseconds since 1970.

    Raises:
        OverflowError: no calendar has it.
    """
    return _EPOCH + timedelta(microseconds=microseconds)


def read(tenant_key: str, stream_id: str, fields: Mapping[bytes, bytes]) -> Row | Reject:
    """Return the row of one entry of a tenant's stream."""
    try:
        at = moment(int(fields[b"at"]))
        entry = decode_entry(fields[b"entry"])
        values = (
            at,
            entry.call,
            tenant_key,
            entry.tenant,
            entry.name,
            entry.scope,
            entry.request,
            entry.user,
            entry.provider,
            entry.model,
            entry.answered,
            entry.input,
            entry.cached,
            entry.cache_write,
            entry.output,
            entry.reasoning,
            entry.source,
            entry.disputed,
            entry.price_input,
            entry.price_output,
            entry.price_source,
            entry.currency,
            entry.known_cost,
            entry.held_tokens,
            entry.held_cost,
            moment(entry.started),
            entry.duration,
            entry.first_byte,
            entry.outcome,
            stream_id,
            entry.unpriced,
            entry.tier,
            msgspec.json.encode(entry.details).decode() if entry.details else None,
            entry.operation,
            entry.purpose,
            entry.streamed,
        )
        _check(fields[b"entry"], values)
    except KeyError as error:
        return reject(stream_id, fields, f"no field {error.args[0]!r}")
    except (ValueError, OverflowError) as error:
        return reject(stream_id, fields, str(error))
    return Row(stream_id, at, entry.call, entry.scope, entry.tokens, entry.cost, values, fields)


def reject(stream_id: str, fields: Mapping[bytes, bytes], reason: str) -> Reject:
    """Return what is kept of an entry that is set aside: all of it."""
    kept = {_text(name): _text(value) for name, value in fields.items()}
    return Reject(
        stream_id, reason.encode(errors="replace").decode().replace("\0", "?")[:500], msgspec.json.encode(kept)
    )


def document(rows: Sequence[Row]) -> str:
    """Return rows as JSON, each an object with its columns.

    As arrays they take this process twice the time: its driver asks of each value whether it is an array itself.
    """
    return msgspec.json.encode([dict(zip(COLUMNS, row.values, strict=True)) for row in rows]).decode()


def _check(raw: bytes, values: tuple[Any, ...]) -> None:
    texts = b"\\u" in raw  # only as an escape can JSON hold what Postgres does not take
    for value in values:
        if texts and isinstance(value, str):
            value.encode()  # a half of a surrogate pair is no text: UnicodeEncodeError, a ValueError
            if "\0" in value:
                raise ValueError("a text with a NUL character")
        elif type(value) is int and not 0 <= value <= _LARGEST:
            raise ValueError(f"{value} is not between 0 and {_LARGEST}")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()
