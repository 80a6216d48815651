"""Queries on answers under way: each is begun, kept up and ended by the process that holds its lease.

Every statement may be repeated when nobody knows whether it was carried out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Float, Integer, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

# A process writes down what it has every half second, and at least every fourth part of this; if it dies, readers see
# that after this time at most.
LEASE_TTL_SECONDS = 10.0

# The conversation, the message that is asked about, and the path up to where the new one goes, the last message first:
# what has to be known before an answer can begin, in one round trip.
_START = text("""
WITH RECURSIVE found AS (
    SELECT c.assistant, c.messages, t.id AS target, t.role AS target_role,
           CASE WHEN :above THEN t.parent_id WHEN :target IS NULL THEN c.leaf_id ELSE t.id END AS start
    FROM conversations c LEFT JOIN messages t ON t.id = :target AND t.conversation_id = c.id
    WHERE c.id = :conversation AND c.owner = :owner
), path AS (
    SELECT m.id, m.parent_id, m.depth, m.role, m.content, octet_length(m.content)::bigint AS bytes
    FROM found f JOIN messages m ON m.id = f.start
    UNION ALL
    SELECT m.id, m.parent_id, m.depth, m.role, m.content, p.bytes + octet_length(m.content)
    FROM path p JOIN messages m ON m.id = p.parent_id WHERE p.bytes < :most
)
SELECT f.assistant, f.messages, f.target, f.target_role, p.id, p.depth, p.role, p.content
FROM found f LEFT JOIN path p ON true ORDER BY p.depth DESC
""").bindparams(bindparam("target", type_=Uuid))
# Both messages and the conversation, or nothing. `ix_messages_running` lets one answer begin at a time.
_BEGIN = text("""
WITH taken AS (
    UPDATE conversations SET leaf_id = :answer, active_at = now(), title = coalesce(title, :title),
        messages = messages + CASE WHEN :question IS NULL THEN 1 ELSE 2 END
    WHERE id = :conversation AND owner = :owner AND messages + 2 <= :most
    RETURNING id
)
INSERT INTO messages (id, conversation_id, parent_id, depth, role, content, status, omitted_turns, request_key,
                      fingerprint, lease, leased_until, finished_at)
SELECT v.* FROM (
    SELECT :question AS id, taken.id, :parent, :depth - 1 AS depth, 'user', :content, 'complete', 0, NULL,
           NULL, NULL, NULL, now() FROM taken WHERE :question IS NOT NULL
    UNION ALL
    SELECT :answer, taken.id, coalesce(:question, :parent), :depth, 'assistant', '', 'running', :omitted, :key,
           :fingerprint, :lease, now() + make_interval(secs => :seconds), NULL FROM taken
) v ORDER BY v.depth
RETURNING id
""").bindparams(
    *(bindparam(name, type_=Uuid) for name in ("answer", "question", "parent", "conversation", "lease")),
    *(bindparam(name, type_=Text) for name in ("title", "content", "key", "fingerprint")),
    *(bindparam(name, type_=Integer) for name in ("depth", "omitted")),
    bindparam("seconds", type_=Float),
)
# `place` makes it right to write the same twice.
_KEEP = text("""
UPDATE messages m SET content = left(m.content, v.place) || v.more,
    leased_until = now() + make_interval(secs => :seconds)
FROM unnest(:ids, :leases, :places, :more) AS v(id, lease, place, more)
WHERE m.id = v.id AND m.lease = v.lease
RETURNING m.id, m.stopping
""").bindparams(
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("leases", type_=ARRAY(Uuid)),
    bindparam("places", type_=ARRAY(Integer)),
    bindparam("more", type_=ARRAY(Text)),
    bindparam("seconds", type_=Float),
)
# Also of an answer that was given up in between, because this process could not reach the database: it is paid for.
_FINISH = text("""
UPDATE messages SET content = :content, status = :status, error_code = :error_code, model = :model,
    annotations = :annotations, input_tokens = :input_tokens, output_tokens = :output_tokens,
    lease = NULL, leased_until = NULL, finished_at = now()
WHERE id = :id AND lease = :lease
""")
_GIVE_UP = text("""
UPDATE messages SET status = 'incomplete', error_code = 'stream_interrupted', finished_at = now()
WHERE conversation_id = :conversation AND status = 'running' AND leased_until < now()
""")
_STOP = text("UPDATE messages SET stopping = true WHERE id = :id AND status = 'running'")
_BY_KEY = text("""
SELECT id, fingerprint FROM messages WHERE conversation_id = :conversation AND request_key = :key
""")
_NEWS = text("""
SELECT m.id, m.status = 'running' AND m.leased_until >= now(), substr(m.content, v.place + 1)
FROM unnest(:ids, :places) AS v(id, place) JOIN messages m ON m.id = v.id
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)), bindparam("places", type_=ARRAY(Integer)))


@dataclass(frozen=True, slots=True)
class Step:
    """A message of the path that a new one goes on from."""

    id: UUID
    depth: int
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Start:
    """What has to be known before an answer can begin; `path` ends with the message that the new one follows."""

    assistant: str
    messages: int
    target_role: str | None  # of the message that was named, None when it is not in the conversation
    path: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Beginning:
    """An answer that is to begin, and the message that it answers where that is new."""

    conversation: UUID
    owner: str
    answer: UUID
    lease: UUID
    depth: int  # of the answer
    parent: UUID | None  # of the question, or, where that is not new, the question
    question: UUID | None
    content: str | None
    title: str | None
    omitted: int
    key: str | None
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What is new of an answer under way: `more` follows the first `place` characters."""

    id: UUID
    lease: UUID
    place: int
    more: str


@dataclass(frozen=True, slots=True)
class Finished:
    """An answer that came to an end, of whatever kind."""

    id: UUID
    lease: UUID
    content: str
    status: str
    error_code: str | None
    model: str | None
    annotations: str | None
    input_tokens: int | None
    output_tokens: int | None


async def start(
    connection: AsyncConnection, owner: str, conversation: UUID, target: UUID | None, *, above: bool, most: int
) -> Start | None:
    """Return what a new message needs; None when the conversation is not the owner's.

    Args:
        target: the message to go on from, None for the end of the active path.
        above: go on from the parent of `target` instead.
        most: bytes of texts after which the path may be cut.
    """
    values = {"owner": owner, "conversation": conversation, "target": target, "above": above, "most": most}
    rows = (await connection.execute(_START, values)).all()
    if not rows:
        return None
    path = [Step(*row[4:]) for row in reversed(rows) if row[4] is not None]
    return Start(rows[0][0], rows[0][1], rows[0][3], path)


async def begin(connection: AsyncConnection, beginning: Beginning, most: int) -> bool:
    """Add the messages; False when there would be more than `most`.

    Raises:
        sqlalchemy.exc.IntegrityError: another answer is under way, or the key was used before.
    """
    values = {name: getattr(beginning, name) for name in Beginning.__slots__}
    values |= {"seconds": LEASE_TTL_SECONDS, "most": most}
    return bool((await connection.execute(_BEGIN, values)).all())


async def keep(connection: AsyncConnection, kept: Sequence[Kept]) -> dict[UUID, bool]:
    """Write down what there is and renew the leases; return those that are still there, and whether to stop."""
    values: dict[str, Any] = {
        "ids": [each.id for each in kept],
        "leases": [each.lease for each in kept],
        "places": [each.place for each in kept],
        "more": [each.more for each in kept],
        "seconds": LEASE_TTL_SECONDS,
    }
    return {row[0]: row[1] for row in await connection.execute(_KEEP, values)}


async def finish(connection: AsyncConnection, finished: Finished) -> None:
    """Write down an answer with how it ended; nothing happens when the conversation was deleted."""
    await connection.execute(_FINISH, {name: getattr(finished, name) for name in Finished.__slots__})


async def give_up(connection: AsyncConnection, conversation: UUID) -> None:
    """End what a process that died has left behind."""
    await connection.execute(_GIVE_UP, {"conversation": conversation})


async def stop(connection: AsyncConnection, answer: UUID) -> None:
    """Have the process that writes an answer stop."""
    await connection.execute(_STOP, {"id": answer})


async def by_key(connection: AsyncConnection, conversation: UUID, key: str) -> tuple[UUID, str] | None:
    """Return the answer that a request with this key began, and the fingerprint of that request."""
    row = (await connection.execute(_BY_KEY, {"conversation": conversation, "key": key})).one_or_none()
    return None if row is None else (row[0], row[1])


async def news(connection: AsyncConnection, places: dict[UUID, int]) -> dict[UUID, tuple[bool, str]]:
    """Return of each answer whether it is still being written, and its text from a place on."""
    values = {"ids": list(places), "places": list(places.values())}
    return {row[0]: (row[1], row[2]) for row in await connection.execute(_NEWS, values)}
