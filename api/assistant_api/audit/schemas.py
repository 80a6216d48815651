"""What the audit log looks like on the wire."""

from __future__ import annotations

from datetime import datetime

import msgspec


class AuditEntryView(msgspec.Struct, frozen=True):
    """Something that was done, or refused. `hash` covers everything else here and the entry before."""

    sequence: int
    at: datetime
    actor_kind: str
    actor: str
    action: str
    target: str
    outcome: str
    address: str
    request_id: str
    details: dict[str, str]
    hash: str


class AuditPage(msgspec.Struct, frozen=True):
    """Entries, the newest first."""

    data: list[AuditEntryView]
    next_cursor: str | None


class AuditReport(msgspec.Struct, frozen=True):
    """Whether the log is whole; `sequence` is the first entry that is not as it was written, `problem` says why."""

    intact: bool
    entries: int
    sequence: int | None = None
    problem: str | None = None
    head: str = ""
