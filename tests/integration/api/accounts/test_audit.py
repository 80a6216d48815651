"""The audit log says what was done, and notices whatever is done to it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest
from accounts_world import EMAIL, AccountsWorld, Caller

from assistant_api.audit.service import Audit
from assistant_api.clients import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")
COLUMNS = ("actor_kind", "actor", "action", "target", "outcome", "address", "request_id", "details")
CHANGES = {
    **{f"another {name}": f"UPDATE audit_entries SET {name} = {name} || 'x' WHERE sequence = 4" for name in COLUMNS},
    "another time": "UPDATE audit_entries SET at = at + interval '1 microsecond' WHERE sequence = 4",
    "another hash": "UPDATE audit_entries SET hash = sha256(hash) WHERE sequence = 4",
    "another hash before": "UPDATE audit_entries SET prev_hash = sha256(hash) WHERE sequence = 4",
    "a removed entry": "DELETE FROM audit_entries WHERE sequence = 4",
    "a removed first entry": "DELETE FROM audit_entries WHERE sequence = 1",
    "a removed last entry": "DELETE FROM audit_entries WHERE sequence = (SELECT max(sequence) FROM audit_entries)",
    "a removed end": "DELETE FROM audit_entries WHERE sequence > 3",
    "everything removed": "DELETE FROM audit_entries",
    "two entries in another order": (
        "UPDATE audit_entries SET sequence = -sequence WHERE sequence IN (3, 4);"
        " UPDATE audit_entries SET sequence = 7 + sequence WHERE sequence IN (-3, -4)"
    ),
    "an entry in another's place": (
        "CREATE TEMPORARY TABLE other AS SELECT * FROM audit_entries WHERE sequence = 3;"
        " DELETE FROM audit_entries WHERE sequence = 4;"
        " INSERT INTO audit_entries SELECT 4, at, actor_kind, actor, action, target, outcome, address, request_id,"
        " details, prev_hash, hash FROM other; DROP TABLE other"
    ),
    "a removed entry and later ones moved up": (
        "DELETE FROM audit_entries WHERE sequence = 4;"
        " UPDATE audit_entries SET sequence = -sequence WHERE sequence > 4;"
        " UPDATE audit_entries SET sequence = -sequence - 1 WHERE sequence < 0;"
        " UPDATE audit_head SET sequence = sequence - 1"
    ),
    "an added entry": (
        "INSERT INTO audit_entries SELECT sequence + 1, at, actor_kind, actor, action, target, outcome, address,"
        " request_id, details, hash, sha256(hash) FROM audit_entries ORDER BY sequence DESC LIMIT 1;"
        " UPDATE audit_head SET sequence = sequence + 1"
    ),
    "another head": "UPDATE audit_head SET hash = sha256(hash)",
    "no head": "DELETE FROM audit_head",
}


async def test_what_people_do_is_written_down(owner: Caller) -> None:
    """Sign-ins that succeed and fail, and changes, with who, from where, and the request's id."""
    failed = await Caller(owner.client)("POST", "auth/login", {"email": EMAIL, "password": "wrong"})
    person = await owner.person("viewer", f"{uuid4().hex}@mail.example.com")
    changed = await owner("PATCH", f"users/{person.user}", {"role": "member"})
    entries = (await owner("GET", "audit?limit=100")).json()["data"]
    assert [entry["sequence"] for entry in entries] == sorted((e["sequence"] for e in entries), reverse=True)
    by_request = {entry["request_id"]: entry for entry in entries}
    failure = by_request[failed.headers["x-request-id"]]
    assert (failure["action"], failure["outcome"], failure["target"]) == ("sign_in", "failure", owner.user)
    change = by_request[changed.headers["x-request-id"]]
    assert (change["actor"], change["target"], change["address"]) == (owner.user, person.user, "127.0.0.1")
    assert change["details"] == {"role": "member", "active": "true"}
    assert {"first_owner_created", "invited", "registered"} <= {entry["action"] for entry in entries}


async def test_the_log_is_read_in_pages_and_filtered(owner: Caller) -> None:
    """Each entry once; filters narrow it, nonsense is named."""
    for _ in range(3):
        await owner.sign_in()
    seen, cursor = [], ""
    while True:
        answer = (await owner("GET", f"audit?limit=2&action=sign_in{cursor}")).json()
        seen += [entry["sequence"] for entry in answer["data"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) >= 4
    later = (await owner("GET", "audit?since=2999-01-01T00:00:00Z")).json()["data"]
    assert later == []
    for wrong in ("limit=0", "limit=201", "cursor=x", "since=yesterday", "action=%00", f"actor={'x' * 300}"):
        assert (await owner("GET", f"audit?{wrong}")).status_code == 400, wrong


async def test_a_whole_log_is_found_whole_while_it_grows(owner: Caller, callers: list[Caller]) -> None:
    """Entries that two pods add at once make one chain."""
    await asyncio.gather(*(caller.sign_in() for caller in (*callers, *callers)))
    first, *_ = await asyncio.gather(owner("GET", "audit/verify"), *(caller.sign_in() for caller in callers))
    assert first.json()["intact"] is True
    report = (await owner("GET", "audit/verify")).json()
    assert (report["intact"], report["problem"]) == (True, None)
    assert report["entries"] > 8


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_of_the_log_is_noticed(owner: Caller, world: AccountsWorld, change: str) -> None:
    """Edited, removed, moved, added or cut off, by somebody who may write every table but has no key."""
    database = Database(world.dsn)
    audit = Audit(world.audit_key)
    assert owner.user
    try:
        async with world.as_owner() as connection:
            for table in ("audit_entries", "audit_head"):
                await connection.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
            try:
                assert (await audit.verify(database)).intact
                await connection.execute(CHANGES[change])
                report = await audit.verify(database)
                assert not report.intact
                assert report.problem
            finally:
                for table in ("audit_entries", "audit_head"):
                    await connection.execute(f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}")
                    await connection.execute(f"DROP TABLE kept_{table}")
        assert (await audit.verify(database)).intact
        assert not (await Audit(bytes(32)).verify(database)).intact
    finally:
        await database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET actor = ''",
        "DELETE FROM audit_entries",
        "TRUNCATE audit_entries",
        "DELETE FROM audit_head",
    ],
)
async def test_pods_add_to_the_log_and_change_nothing(world: AccountsWorld, statement: str) -> None:
    """The credential of the tenant's own pods is refused."""
    connection = await asyncpg.connect(world.dsn)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()
