"""Registering, roles, and what becomes of people."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from accounts_world import GOOD_PASSWORD, AccountsWorld, Caller
from api_process import KEY, ApiProcess

from assistant_crds.contracts import TenantConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROLES = ("viewer", "member", "admin", "owner")
# method, path, the lowest role; what an API key may is what "admin" may, where no person is asked for.
ROUTES = [
    ("GET", "/v1/models", "viewer"),
    ("GET", "/v1/usage", "admin"),
    ("GET", "/api/v1/usage", "admin"),
    ("GET", "/api/v1/knowledge-bases", "viewer"),
    ("GET", "/api/v1/knowledge-bases/none/documents", "viewer"),
    ("POST", "/api/v1/knowledge-bases/none/documents", "member"),
    ("DELETE", "/api/v1/knowledge-bases/none/documents/1", "member"),
    ("GET", "users/me", "viewer"),
    ("GET", "users/me/export", "viewer"),
    ("GET", "auth/sessions", "viewer"),
    ("GET", "users", "admin"),
    ("GET", f"users/{uuid4()}", "admin"),
    ("PATCH", f"users/{uuid4()}", "admin"),
    ("GET", "invitations", "admin"),
    ("POST", "invitations", "admin"),
    ("DELETE", f"invitations/{uuid4()}", "admin"),
    ("GET", "audit", "admin"),
    ("GET", "audit/verify", "admin"),
]
PEOPLE_ONLY = ("users", "auth", "invitations", "audit")


def address() -> str:
    return f"{uuid4().hex}@mail.example.com"


def code(answer: object) -> str:
    return str(answer.json()["code"])  # type: ignore[attr-defined]


async def test_every_route_asks_for_its_role(owner: Caller) -> None:
    """Who has less gets 403, and who has it does not; an API key does nothing with people."""
    people = {role: await owner.person(role, address()) for role in ROLES}
    for method, path, lowest in ROUTES:
        for role in ROLES:
            answer = await people[role](method, path, {} if method in {"POST", "PATCH"} else None)
            allowed = ROLES.index(role) >= ROLES.index(lowest)
            assert (answer.status_code != 403) is allowed, (method, path, role, answer.text)
            assert answer.status_code < 500, answer.text
        with_key = await owner(method, path, {} if method in {"POST", "PATCH"} else None, token=KEY)
        assert (with_key.status_code == 403) is path.startswith(PEOPLE_ONLY), (method, path, with_key.text)
        assert (await Caller(owner.client)(method, path)).status_code == 401
    denied = (await owner("GET", f"audit?outcome=denied&actor={people['viewer'].user}&limit=100")).json()["data"]
    assert {entry["details"]["request"] for entry in denied} >= {"GET /api/v1/audit", "POST /api/v1/invitations"}


async def test_an_invitation_registers_one_person(owner: Caller, world: AccountsWorld) -> None:
    """Once, until it expires or is withdrawn, and only the address that it names."""
    token = await owner.invite("viewer")
    answers = await asyncio.gather(*(owner.register(address(), token) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 403, 403, 403]
    registered = next(answer for answer in answers if answer.status_code == 201)
    assert registered.json()["role"] == "viewer"
    email = address()
    named = await owner.invite("member", email=email)
    assert code(await owner.register(address(), named)) == "invitation_invalid"
    assert (await owner.register(email.upper(), named)).status_code == 201
    expired = await owner.invite("member")
    async with world.as_owner() as connection:
        await connection.execute("UPDATE invitations SET expires_at = now() WHERE used_at IS NULL")
    assert code(await owner.register(address(), expired)) == "invitation_invalid"
    withdrawn = await owner("POST", "invitations", {"role": "member"})
    assert [each["id"] for each in (await owner("GET", "invitations")).json()["data"]] == [withdrawn.json()["id"]]
    assert (await owner("DELETE", f"invitations/{withdrawn.json()['id']}")).status_code == 204
    assert code(await owner.register(address(), withdrawn.json()["token"])) == "invitation_invalid"


async def test_registration_follows_the_tenants_mode(
    owner: Caller, apis: list[ApiProcess], world: AccountsWorld
) -> None:
    """Open makes members, Invite takes an invitation, Closed takes nobody, without a restart."""

    async def until(answered: str, config: TenantConfig, invitation: str | None = None) -> None:
        """Wait until a registration has this role, or this code."""
        apis[0].configure(config)
        for _ in range(100):
            answer = await owner.register(address(), invitation)
            if answered in {answer.json().get("role"), answer.json().get("code")}:
                return
            await asyncio.sleep(0.2)
            async with world.as_owner() as connection:
                await connection.execute("DELETE FROM login_attempts WHERE key LIKE 'register:%'")
        raise AssertionError(answer.text)

    invitation = await owner.invite("member")
    try:
        await until("member", world.config("Open"))
        await until("registration_closed", world.config("Closed"), invitation)
    finally:  # also for the tests that follow
        await until("invitation_invalid", world.config())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": "a@b@mail.example.com"}, "email"),
        ({"email": "a@no-such"}, "email"),
        ({"email": "a\u0000@mail.example.com"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "willkommen2026"}, "password"),
        ({"password": "x" * 300}, "password"),
        ({"name": ""}, "name"),
        ({"name": "Ada\u0007"}, "name"),
        ({"role": "owner"}, None),
    ],
)
async def test_what_is_wrong_is_named(
    owner: Caller, world: AccountsWorld, change: dict[str, str], field: str | None
) -> None:
    """400 with the field; a role cannot be asked for."""
    async with world.as_owner() as connection:
        await connection.execute("DELETE FROM login_attempts")
    body = {"email": address(), "password": GOOD_PASSWORD, "name": "Ada", "invitation": await owner.invite("viewer")}
    answer = await Caller(owner.client)("POST", "auth/register", {**body, **change})
    assert answer.status_code == 400, answer.text
    assert field is None or answer.json()["field"] == field


async def test_an_address_has_one_account(owner: Caller) -> None:
    """Whatever its case."""
    email = address()
    await owner.person("member", email)
    assert code(await owner.register(email.title(), await owner.invite("member"))) == "email_taken"


async def test_a_changed_role_counts_at_once(owner: Caller, callers: list[Caller]) -> None:
    """Tokens of the former role are refused; the next ones have the new role."""
    person = await owner.person("admin", address())
    there = Caller(callers[1].client, person.tokens)
    assert (await person("GET", "users")).status_code == 200
    changed = await owner("PATCH", f"users/{person.user}", {"role": "viewer"})
    assert (changed.status_code, changed.json()["role"]) == (200, "viewer")
    assert (await person("GET", "users/me")).status_code == 401
    await asyncio.sleep(1.5)
    assert (await there("GET", "users/me")).status_code == 401
    person.tokens = (await person.refresh()).json()
    assert person.tokens["role"] == "viewer"
    assert (await person("GET", "users")).status_code == 403


async def test_who_was_deactivated_is_out_until_let_in_again(owner: Caller) -> None:
    """Neither token, refresh nor password works meanwhile, and nothing says why."""
    email = address()
    person = await owner.person("member", email)
    assert (await owner("PATCH", f"users/{person.user}", {"active": False})).json()["active"] is False
    assert (await person("GET", "users/me")).status_code == 401
    assert (await person.refresh()).status_code == 401
    refused = await person("POST", "auth/login", {"email": email, "password": GOOD_PASSWORD}, token="")
    assert code(refused) == "invalid_credentials"
    assert (await owner("PATCH", f"users/{person.user}", {"active": True})).status_code == 200
    await person.sign_in(email, GOOD_PASSWORD)


async def test_administrators_make_no_owners(owner: Caller) -> None:
    """Nor do they change one."""
    admin = await owner.person("admin", address())
    member = await owner.person("member", address())
    for answer in (
        await admin("PATCH", f"users/{member.user}", {"role": "owner"}),
        await admin("PATCH", f"users/{owner.user}", {"role": "member"}),
        await admin("PATCH", f"users/{owner.user}", {"active": False}),
        await admin("POST", "invitations", {"role": "owner"}),
    ):
        assert (answer.status_code, code(answer)) == (403, "role_required")
    assert (await admin("PATCH", f"users/{member.user}", {"role": "admin"})).status_code == 200


async def test_the_last_owner_stays(owner: Caller, world: AccountsWorld) -> None:
    """Not demoted, deactivated or deleted, not even by two owners at the same moment."""
    async with world.as_owner() as connection:
        await connection.execute("UPDATE users SET role = 'member' WHERE role = 'owner' AND id <> $1", owner.user)
    for body in ({"role": "admin"}, {"active": False}):
        assert code(await owner("PATCH", f"users/{owner.user}", body)) == "last_owner"
    from accounts_world import PASSWORD

    assert code(await owner("POST", "users/me/deletion", {"password": PASSWORD})) == "last_owner"
    second = await owner.person("owner", address())
    answers = await asyncio.gather(
        owner("PATCH", f"users/{second.user}", {"role": "member"}),
        second("PATCH", f"users/{owner.user}", {"role": "member"}),
    )
    assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 403], [200, 409])
    async with world.as_owner() as connection:
        assert await connection.fetchval("SELECT count(*) FROM users WHERE role = 'owner'") == 1
        await connection.execute("UPDATE users SET role = 'owner' WHERE id = $1", owner.user)
        version = await connection.fetchval(
            "UPDATE users SET version = version + 1 WHERE id = $1 RETURNING 1", owner.user
        )
        assert version == 1
    owner.tokens = (await owner.sign_in()).tokens


async def test_people_see_change_export_and_delete_themselves(owner: Caller, world: AccountsWorld) -> None:
    """Nothing but the audit log's ids is left; what cannot be is named."""
    email = address()
    person = await owner.person("viewer", email)
    changed = await person("PATCH", "users/me", {"name": "Ada L.", "language": "de", "time_zone": "Europe/Berlin"})
    assert changed.json() | {"name": "Ada L.", "language": "de", "time_zone": "Europe/Berlin"} == changed.json()
    assert (await person("PATCH", "users/me", {"language": None})).json()["language"] is None
    for wrong in ({"language": "xx"}, {"time_zone": "Mars/Olympus"}, {"role": "owner"}):
        assert (await person("PATCH", "users/me", wrong)).status_code == 400
    export = (await person("GET", "users/me/export")).json()
    assert export["user"]["email"] == email
    assert [each["id"] for each in export["sessions"]] == [person.tokens["session_id"]]
    assert "registered" in {each["action"] for each in export["activity"]}
    async with world.as_owner() as connection:
        await connection.execute(
            "INSERT INTO conversations (id, owner, assistant) VALUES (gen_random_uuid(), $1, 'plain')",
            f"user:{person.user}",
        )
    assert len((await person("GET", "conversations")).json()["data"]) == 1
    assert code(await person("POST", "users/me/deletion", {"password": "wrong"})) == "invalid_credentials"
    assert (await person("POST", "users/me/deletion", {"password": GOOD_PASSWORD})).status_code == 204
    assert (await person("GET", "users/me")).status_code == 401
    assert (await person.refresh()).status_code == 401
    async with world.as_owner() as connection:
        assert await connection.fetchval("SELECT count(*) FROM users WHERE id = $1", person.user) == 0
        assert await connection.fetchval("SELECT count(*) FROM sessions WHERE user_id = $1", person.user) == 0
        assert await connection.fetchval("SELECT count(*) FROM conversations") == 0


async def test_people_are_listed_in_pages(owner: Caller) -> None:
    """Each once, by address."""
    for _ in range(3):
        await owner.person("viewer", address())
    seen, cursor = [], ""
    while True:
        answer = (await owner("GET", f"users?limit=2{cursor}")).json()
        seen += [each["email"] for each in answer["data"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert seen == sorted(seen, key=str.casefold)
    assert len(seen) == len(set(seen)) >= 4
    for wrong in ("limit=0", "limit=101", "cursor=%00", "cursor=ü"):
        assert (await owner("GET", f"users?{wrong}")).status_code == 400
