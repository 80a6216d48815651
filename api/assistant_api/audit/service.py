"""Write down what was done, so that no later change of it goes unnoticed.

Each entry's hash is an HMAC-SHA256 over itself and the hash before it, under a key that the database does not have.
Entries are added in the transaction of what they tell, as its last statement: the head's row is locked no longer than
it takes to commit, and always last, so that nobody waits in a circle.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from assistant_api.audit import repository
from assistant_api.audit.repository import Filter
from assistant_api.audit.schemas import AuditEntryView, AuditPage, AuditReport
from assistant_api.clients import Database
from assistant_api.parameters import check_limit, from_cursor, pack_sequence, to_cursor, unpack_sequence
from assistant_observability import logs

MAX_PAGE = 200
FIRST_HASH = bytes(32)
_PORTION = 500  # entries that are verified before other requests get their turn
_HASHED = ("sequence", "actor_kind", "actor", "action", "target", "outcome", "address", "request_id", "details")

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from."""

    address: str
    device: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something to write down. `actor` and `target` are ids; no names, email addresses, prompts or secrets."""

    action: str
    outcome: str = "success"  # or failure, or denied
    actor_kind: str = "anonymous"
    actor: str = ""
    target: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


def entry_hash(key: bytes, values: Mapping[str, Any], previous: bytes) -> bytes:
    """Return the hash of an entry behind `previous`."""
    at = values["at"].astimezone(UTC).isoformat(timespec="microseconds")
    # A list of texts as JSON: no two different entries have the same bytes.
    content = msgspec.json.encode([at, *(str(values[name]) for name in _HASHED)])
    return hmac.digest(key, previous + content, hashlib.sha256)


class Audit:
    """The audit log of the tenant."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    async def record(self, connection: AsyncConnection, event: Event, origin: Origin) -> None:
        """Add an entry. It is there if the transaction commits; call it last."""
        last = await repository.lock_head(connection)
        if last is None:
            raise RuntimeError("the audit log has no head")
        sequence, previous = last[0] + 1, last[1]
        said = {
            "sequence": sequence,
            "actor_kind": event.actor_kind,
            "actor": event.actor,
            "action": event.action,
            "target": event.target,
            "outcome": event.outcome,
            "address": origin.address,
            "request_id": origin.request_id,
            "details": msgspec.json.encode(dict(event.details), order="sorted").decode(),
        }
        values: dict[str, Any] = {**said, "at": datetime.now(UTC)}
        mac = entry_hash(self._key, values, previous)
        await repository.append(connection, {**values, "prev_hash": previous, "hash": mac})
        _log.info("audit", **{name: value for name, value in said.items() if name != "request_id"}, hash=mac.hex())

    async def verify(self, database: Database) -> AuditReport:
        """Compute every entry again; return the first that is not as it was written."""
        sequence, previous = 0, FIRST_HASH
        async with database.reading() as connection:
            # The head first: entries that are added meanwhile are behind it, and are left to the next call.
            last = await repository.read_head(connection)
            if last is None:
                return AuditReport(False, 0, None, "the head is missing")
            while sequence < last[0] and (rows := await repository.after(connection, sequence, _PORTION)):
                for row in rows:
                    if row.sequence > last[0]:
                        break
                    if problem := self._problem(row, sequence, previous):
                        return AuditReport(False, sequence, sequence + 1, problem)
                    sequence, previous = row.sequence, row.hash
                else:
                    await asyncio.sleep(0)
                    continue
                break
        if (sequence, previous) != last:
            missing = sequence < last[0]
            problem = "entries are missing at the end" if missing else "the head does not belong to the last entry"
            return AuditReport(False, sequence, sequence + missing, problem)
        return AuditReport(True, sequence, head=previous.hex())

    def _problem(self, row: Any, sequence: int, previous: bytes) -> str | None:
        if row.sequence != sequence + 1:
            return "an entry is missing"
        if not hmac.compare_digest(row.prev_hash, previous):
            return "the entry does not follow the one before it"
        if not hmac.compare_digest(entry_hash(self._key, row._asdict(), previous), row.hash):
            return "the entry was changed"
        return None


async def read(database: Database, wanted: Filter, limit: int, cursor: str | None) -> AuditPage:
    """Return a page of entries, the newest first, from `cursor` on."""
    check_limit(limit, MAX_PAGE)
    before = from_cursor(cursor, unpack_sequence)
    async with database.reading() as connection:
        rows = await repository.page(connection, wanted, before, limit + 1)
    shown = [_view(row) for row in rows[:limit]]
    return AuditPage(shown, to_cursor(pack_sequence(shown[-1].sequence)) if len(rows) > limit else None)


def _view(row: Any) -> AuditEntryView:
    return AuditEntryView(
        sequence=row.sequence,
        at=row.at,
        actor_kind=row.actor_kind,
        actor=row.actor,
        action=row.action,
        target=row.target,
        outcome=row.outcome,
        address=row.address,
        request_id=row.request_id,
        details=msgspec.json.decode(row.details, type=dict[str, str]),
        hash=row.hash.hex(),
    )
