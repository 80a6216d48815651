"""Signing in, staying signed in and ending it, on a real Postgres with two API processes."""

from __future__ import annotations

import asyncio
import json
import time
from uuid import uuid4

import jwt
import pytest
from accounts_world import EMAIL, GOOD_PASSWORD, PASSWORD, AccountsWorld, Caller
from api_gateway import FakeGateway
from api_process import KEY, ApiProcess, api_process

from assistant_api.audit.service import Origin
from assistant_api.auth import sign_in
from assistant_api.auth.accounts import Accounts, Keys
from assistant_api.auth.schemas import LoginRequest
from assistant_api.clients import Database
from assistant_api.errors import ApiError
from assistant_api.tenant_config import TenantConfigHolder

pytestmark = pytest.mark.asyncio(loop_scope="module")


def code(answer: object) -> str:
    return str(answer.json()["code"])  # type: ignore[attr-defined]


async def test_the_first_owner_signs_in_with_the_secret(owner: Caller) -> None:
    """The token names owner and session; the address in another spelling is the same account."""
    assert owner.tokens["role"] == "owner"
    assert owner.tokens["expires_in"] <= 600
    me = await owner("GET", "users/me")
    assert (me.status_code, me.json()["email"], me.json()["role"]) == (200, EMAIL, "owner")
    again = await owner.sign_in(EMAIL.upper())
    assert again.user == owner.user
    assert (await Caller(owner.client)("POST", "auth/login", {"email": EMAIL, "password": "x"})).status_code == 401


async def test_others_verify_tokens_with_the_published_key(owner: Caller, world: AccountsWorld) -> None:
    """Any JWT library reads them: EdDSA, key by `kid`, issuer and audience."""
    keys = jwt.PyJWKSet.from_dict((await Caller(owner.client)("GET", "auth/jwks")).json())
    header = jwt.get_unverified_header(owner.access)
    assert (header["alg"], header["typ"]) == ("EdDSA", "at+jwt")
    claims = jwt.decode(
        owner.access,
        keys[header["kid"]].key,
        algorithms=["EdDSA"],
        audience="assistant-api",
        issuer=f"urn:assistantplatform:tenant:{world.key}",
        options={"require": ["exp", "iat", "sub", "sid", "jti"]},
    )
    assert claims["sub"] == owner.user
    assert claims["exp"] - claims["iat"] <= 600


async def test_twenty_racing_refreshes_give_one_successor(owner: Caller, callers: list[Caller]) -> None:
    """All of them, at two pods, get the same token; it works, and another retry gets it again until it is used."""
    device = await owner.sign_in()
    first = device.tokens["refresh_token"]
    answers = await asyncio.gather(*(callers[n % 2].refresh(first) for n in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    (successor,) = {answer.json()["refresh_token"] for answer in answers}
    assert successor != first
    following = await device.refresh(successor)
    assert following.status_code == 200


async def test_a_replay_ends_the_session_everywhere(owner: Caller, callers: list[Caller]) -> None:
    """A token that was exchanged, and whose successor was used, is somebody's who stole it or was robbed."""
    device = await owner.sign_in()
    second = (await device.refresh()).json()
    third = (await device.refresh(second["refresh_token"])).json()
    replayed = await device.refresh()
    assert (replayed.status_code, code(replayed)) == (401, "refresh_token_reused")
    assert code(await device.refresh(third["refresh_token"])) == "invalid_refresh_token"
    refused = await device("GET", "users/me", token=third["access_token"])
    assert (refused.status_code, code(refused)) == (401, "invalid_token")
    await eventually_refused(callers[1], third["access_token"])
    log = (await owner("GET", "audit?action=refresh_token_reuse")).json()["data"]
    assert log[0]["target"] == device.tokens["session_id"]


async def test_an_exchange_can_be_repeated_for_ten_seconds_only(owner: Caller, world: AccountsWorld) -> None:
    """Later the same token is a replay, although nobody used its successor."""
    device = await owner.sign_in()
    one, two = (await device.refresh()).json(), (await device.refresh()).json()
    assert one["refresh_token"] == two["refresh_token"]
    async with world.as_owner() as connection:
        await connection.execute(
            "UPDATE refresh_tokens SET rotated_at = rotated_at - interval '11 s' WHERE session_id = $1",
            device.tokens["session_id"],
        )
    assert code(await device.refresh()) == "refresh_token_reused"
    assert code(await device.refresh(one["refresh_token"])) == "invalid_refresh_token"


async def eventually_refused(caller: Caller, token: str) -> None:
    """Wait until a token is refused; two seconds are allowed."""
    since = time.monotonic()
    while (await caller("GET", "/v1/models", token=token)).status_code != 401:
        # Answers that were sent within the two seconds may be slow to arrive on a busy machine.
        assert time.monotonic() - since < 10
        await asyncio.sleep(0.1)


async def test_a_session_that_ended_is_refused_by_another_pod(owner: Caller, callers: list[Caller]) -> None:
    """The other pod, which has taken the token before, asks again once what it knows is a second old."""
    device = await owner.sign_in()
    there = Caller(callers[1].client, device.tokens)
    assert (await there("GET", "users/me")).status_code == 200
    assert (await device("POST", "auth/logout")).status_code == 204
    assert (await device("GET", "users/me")).status_code == 401
    await asyncio.sleep(1.5)
    assert (await there("GET", "users/me")).status_code == 401
    chat = {"model": "plain", "messages": [{"role": "user", "content": "hi"}]}
    refused = await there("POST", "/v1/chat/completions", chat)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_token")
    assert code(await device.refresh()) == "invalid_refresh_token"


async def test_sessions_are_listed_and_ended_one_by_one_or_all(owner: Caller) -> None:
    """Each with device, address and times; somebody else's does not exist."""
    person = await owner.person("member", f"{uuid4().hex}@mail.example.com")
    other = await person.sign_in((await person("GET", "users/me")).json()["email"], GOOD_PASSWORD)
    listed = (await person("GET", "auth/sessions")).json()["data"]
    assert {each["id"]: each["current"] for each in listed} == {
        person.tokens["session_id"]: True,
        other.tokens["session_id"]: False,
    }
    assert {each["address"] for each in listed} == {"127.0.0.1"}
    foreign = await person("DELETE", f"auth/sessions/{owner.tokens['session_id']}")
    assert (foreign.status_code, code(foreign)) == (404, "session_not_found")
    assert (await person("DELETE", f"auth/sessions/{other.tokens['session_id']}")).status_code == 204
    assert (await other("GET", "users/me")).status_code == 401
    assert (await person("POST", "auth/logout-all")).status_code == 204
    assert (await person("GET", "users/me")).status_code == 401
    assert (await owner("GET", "users/me")).status_code == 200


async def test_a_new_password_ends_the_other_sessions(owner: Caller) -> None:
    """It takes the old one, and a good new one."""
    email = f"{uuid4().hex}@mail.example.com"
    person = await owner.person("member", email)
    other = await person.sign_in(email, GOOD_PASSWORD)
    fresh = "three unrelated nouns 77"
    body = {"current_password": "wrong", "new_password": fresh}
    assert code(await person("POST", "auth/password", body)) == "invalid_credentials"
    weak = await person("POST", "auth/password", {"current_password": GOOD_PASSWORD, "new_password": "passwort1234"})
    assert (weak.status_code, weak.json()["field"]) == (400, "new_password")
    body["current_password"] = GOOD_PASSWORD
    assert (await person("POST", "auth/password", body)).status_code == 204
    assert (await person("GET", "users/me")).status_code == 200
    assert (await other("GET", "users/me")).status_code == 401
    await person.sign_in(email, fresh)


async def test_wrong_passwords_are_throttled_by_account(owner: Caller, callers: list[Caller]) -> None:
    """Of many at once at two pods ten are looked at; then the right one waits too, and other accounts do not."""
    email = f"{uuid4().hex}@mail.example.com"
    await owner.person("member", email)
    body = {"email": email, "password": "wrong"}
    answers = await asyncio.gather(*(callers[n % 2]("POST", "auth/login", body) for n in range(24)))
    statuses = [answer.status_code for answer in answers]
    assert sorted(set(statuses)) == [401, 429]
    # One more for each half minute that a slow machine takes.
    assert 10 <= statuses.count(401) <= 12
    right = await callers[0]("POST", "auth/login", {"email": email, "password": GOOD_PASSWORD})
    assert (right.status_code, code(right)) == (429, "too_many_attempts")
    assert 1 <= int(right.headers["retry-after"]) <= 330
    await owner.sign_in()


async def test_forwarded_headers_do_not_change_the_address(owner: Caller, world: AccountsWorld) -> None:
    """Attempts are counted for the other end of the connection, whatever a caller writes."""
    async with world.as_owner() as connection:
        before = await connection.fetchval("SELECT arrival FROM login_attempts WHERE key = 'address:127.0.0.1'")
        headers = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9"}
        body = {"email": f"{uuid4().hex}@mail.example.com", "password": "x"}
        await owner.client.post("/api/v1/auth/login", json=body, headers=headers)
        keys = {row[0] for row in await connection.fetch("SELECT key FROM login_attempts WHERE key LIKE 'address:%'")}
        after = await connection.fetchval("SELECT arrival FROM login_attempts WHERE key = 'address:127.0.0.1'")
    assert keys == {"address:127.0.0.1"}
    assert before is None or after > before


async def test_calls_are_put_down_to_the_user(owner: Caller, gateway: FakeGateway) -> None:
    """The gateway hears who signed in, whatever the request says of its end user; a key speaks for whom it names."""
    body = {"model": "plain", "messages": [{"role": "user", "content": "hi"}], "user": "somebody-else"}
    for token, user in ((owner.access, f"user:{owner.user}"), (KEY, "somebody-else")):
        assert (await owner("POST", "/v1/chat/completions", body, token=token)).status_code == 200
        assert gateway.headers[-1]["x-assistant-user"] == user


async def test_neither_log_nor_audit_holds_a_secret(
    owner: Caller, apis: list[ApiProcess], world: AccountsWorld
) -> None:
    """No password, token, or what somebody typed as an address."""
    typed = f"{uuid4().hex}@mail.example.com"
    await Caller(owner.client)("POST", "auth/login", {"email": typed, "password": "typed-by-mistake"})
    person = await owner.person("member", f"{uuid4().hex}@mail.example.com")
    async with world.as_owner() as connection:
        rows = [tuple(row) for row in await connection.fetch("SELECT * FROM audit_entries")]
    text = json.dumps(rows, default=str) + apis[0].log()
    assert "sign_in" in text
    secrets = [typed, "typed-by-mistake", GOOD_PASSWORD, PASSWORD, "$argon2id", person.access.rsplit(".", 1)[1]]
    assert not [secret for secret in [*secrets, person.tokens["refresh_token"]] if secret in text]


async def test_without_keys_nobody_signs_in_and_api_keys_work(world: AccountsWorld, owner: Caller, tmp_path) -> None:
    """A pod with the Secret of an older release starts, and says what is missing."""
    with api_process(tmp_path / "old", world.config(), {"postgres_dsn": world.dsn}) as old:
        old.wait_ready()
        caller = Caller(owner.client)
        login = await caller.client.post(f"{old.url}/api/v1/auth/login", json={"email": EMAIL, "password": PASSWORD})
        assert (login.status_code, code(login)) == (503, "sign_in_unavailable")
        for token, status in ((KEY, 200), (owner.access, 503)):
            headers = {"authorization": f"Bearer {token}"}
            assert (await caller.client.get(f"{old.url}/v1/models", headers=headers)).status_code == status


async def test_an_unknown_account_costs_what_a_known_one_does(owner: Caller, world: AccountsWorld) -> None:
    """One computation of the password's hash each, so that the answer's time says nothing; none once throttled."""
    gone, there = f"{uuid4().hex}@mail.example.com", f"{uuid4().hex}@mail.example.com"
    for email in (gone, there):
        person = await owner.person("member", email)
        if email == gone:
            assert (await owner("PATCH", f"users/{person.user}", {"active": False})).status_code == 200
    database = Database(world.dsn)
    keys = Keys(world.seed, world.audit_key)
    accounts = Accounts(TenantConfigHolder.fixed(world.config()), database, keys, ["en"])
    origin = Origin("192.0.2.1", "test", "request")
    try:
        for email, password in ((there, "wrong"), (gone, GOOD_PASSWORD), (gone, "wrong"), ("nobody@x", "wrong")):
            before = accounts.passwords.operations
            with pytest.raises(ApiError) as caught:
                await sign_in.login(accounts, LoginRequest(email, password), origin)
            assert caught.value.kind.code == "invalid_credentials"
            assert accounts.passwords.operations - before == 1, email
        async with world.as_owner() as connection:
            await connection.execute("UPDATE login_attempts SET arrival = now() + interval '1 day'")
        before = accounts.passwords.operations
        for email in (there, "nobody@x"):
            with pytest.raises(ApiError) as caught:
                await sign_in.login(accounts, LoginRequest(email, "wrong"), origin)
            assert caught.value.kind.code == "too_many_attempts"
        assert accounts.passwords.operations == before
    finally:
        async with world.as_owner() as connection:
            await connection.execute("DELETE FROM login_attempts")
        accounts.close()
        await database.close()
