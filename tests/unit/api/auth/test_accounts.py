"""What a process keeps of people: revoked sessions, passwords, keys."""

from __future__ import annotations

import asyncio
import base64
import secrets
from uuid import UUID, uuid4

import pytest
from api_world import KEY

from assistant_api.auth import throttle
from assistant_api.auth.accounts import Keys, is_token
from assistant_api.auth.passwords import (
    MAX_CONCURRENT_HASHES,
    MAX_WAITING_HASHES,
    Passwords,
    check_strength,
    normal_email,
)
from assistant_api.auth.revocations import Revocations
from assistant_api.auth.roles import at_least
from assistant_api.auth.tokens import Claims
from assistant_api.config import Settings
from assistant_api.errors import ApiError


class Feed:
    """The database's answers."""

    def __init__(self) -> None:
        self.rows: list[tuple[UUID, int | None]] = []
        self.asked = 0
        self.away = False

    async def __call__(self) -> list[tuple[UUID, int | None]]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionRefusedError
        return list(self.rows)


class Clock:
    """Moves when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def claims(user: UUID | None = None, version: int = 1) -> Claims:
    return Claims("i", "a", user or uuid4(), uuid4(), "j", 0, 0, "member", version)


async def test_what_is_revoked_is_asked_for_once_a_second_and_only_when_needed() -> None:
    """Many tokens at once make one question; a tenant that rests makes none."""
    feed, clock = Feed(), Clock()
    revocations = Revocations(feed, clock)
    token = claims()
    assert not any(await asyncio.gather(*(revocations.revoked(token) for _ in range(50))))
    assert feed.asked == 1
    feed.rows = [(token.sid, None)]
    clock.now += 0.9
    assert not await revocations.revoked(token)
    clock.now += 0.2
    assert await revocations.revoked(token)
    assert feed.asked == 2


async def test_a_version_revokes_what_was_made_before() -> None:
    """Tokens of a user's former role hold no more; those of the new one, and other users', do."""
    feed, user = Feed(), uuid4()
    feed.rows = [(user, 3), (user, 2)]
    revocations = Revocations(feed, Clock())
    assert await revocations.revoked(claims(user, 2))
    assert not await revocations.revoked(claims(user, 3))
    assert not await revocations.revoked(claims())


async def test_tokens_are_refused_when_the_database_is_away_for_long() -> None:
    """For half a minute what was known is used, then nothing is taken; asked again once a second."""
    feed, clock = Feed(), Clock()
    revocations = Revocations(feed, clock)
    token = claims()
    assert not await revocations.revoked(token)
    feed.away = True
    clock.now += 20
    assert not await revocations.revoked(token)
    asked = feed.asked
    assert not await revocations.revoked(token)
    assert feed.asked == asked
    clock.now += 15
    with pytest.raises(ApiError) as caught:
        await revocations.revoked(token)
    assert caught.value.kind.code == "sign_in_unavailable"
    feed.away = False
    clock.now += 1.1
    assert not await revocations.revoked(token)


async def test_nothing_is_taken_before_the_first_answer() -> None:
    """A process that never reached the database takes no token."""
    feed = Feed()
    feed.away = True
    with pytest.raises(ApiError):
        await Revocations(feed, Clock()).revoked(claims())


async def test_what_was_revoked_here_counts_at_once() -> None:
    """Even if a question was on its way, whose answer is from before."""
    feed, clock = Feed(), Clock()
    revocations = Revocations(feed, clock)
    token = claims()
    under_way = asyncio.create_task(revocations.revoked(token))
    await asyncio.sleep(0)
    feed.rows = [(token.sid, None)]
    revocations.forget()
    assert await revocations.revoked(token)
    await under_way
    assert await revocations.revoked(token)


async def test_passwords_are_hashed_two_at_once_and_a_flood_is_refused() -> None:
    """More wait, up to a bound; nobody's password matches nothing."""
    passwords = Passwords()
    try:
        assert passwords._pool._max_workers == MAX_CONCURRENT_HASHES
        known = await passwords.hash("correct horse")
        assert known.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
        assert not passwords.is_outdated(known)
        assert await passwords.verify(known, "correct horse")
        assert not await passwords.verify(known, "wrong")
        assert not await passwords.verify(None, "wrong")
        assert not await passwords.verify("no hash", "wrong")
        waiting = [asyncio.create_task(passwords.verify(None, "x")) for _ in range(MAX_WAITING_HASHES + 1)]
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in done].count(ApiError) == 1
        assert passwords.operations == 5 + MAX_WAITING_HASHES
    finally:
        passwords.close()


@pytest.mark.parametrize(
    "password", ["short", "passwort1234", "willkommen1", "ada.lovelace@x", "aaaaaaaaaaaaaaa", "qwertz123456"]
)
async def test_a_password_that_is_easy_to_guess_is_refused(password: str) -> None:
    """Short, common in English or German, or made of what is known of its owner."""
    with pytest.raises(ApiError):
        await check_strength("password", password, "ada.lovelace@example.com", "Ada Lovelace")


async def test_a_good_password_and_address_are_taken() -> None:
    """Several words are good; an address is normalised, and no name server is asked."""
    await check_strength("password", "larkspur bottom bracket 42", "ada@mail.example.com")
    assert await normal_email("Ada@Mail.Example.COM") == "Ada@mail.example.com"


@pytest.mark.parametrize(
    ("ip", "key"),
    [
        ("192.0.2.7", "address:192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "address:2001:db8:1:2::/64"),
        ("", "address:unknown"),
    ],
)
def test_addresses_are_counted_by_who_holds_them(ip: str, key: str) -> None:
    """An IPv6 customer has a whole network of addresses."""
    assert throttle.address(ip) == key


def test_an_account_is_counted_by_its_hash() -> None:
    """What somebody typed as an address, perhaps a password, is not stored."""
    assert "secret" not in throttle.account("secret")


def test_an_unknown_role_may_do_nothing() -> None:
    """Nor does an unknown need pass."""
    assert not at_least("root", "viewer")
    assert at_least("owner", "admin")
    assert not at_least("viewer", "member")


def test_api_keys_are_no_tokens() -> None:
    """They keep their own way, which is shorter."""
    assert not is_token(f"Bearer {KEY}")
    assert not is_token(None)
    assert is_token("Bearer eyJhbGciOiJFZERTQSJ9.e30.x")


def test_keys_of_another_form_are_none() -> None:
    """A Secret that somebody spoilt does not become a weak key."""
    seed = secrets.token_bytes(32)
    stores = {"postgres_dsn": "p", "redis_url": "r", "weaviate_url": "w", "weaviate_grpc": "g", "weaviate_api_key": "k"}
    good = base64.urlsafe_b64encode(seed).decode().rstrip("=")
    keys = Keys.of(Settings(**stores, signing_key=good, audit_key=good))
    assert (keys.signing, keys.audit) == (seed, seed)
    assert good not in repr(keys)
    for spoilt in ("", "short", "ü" * 43, good[:-1], good + "AAAA"):
        assert Keys.of(Settings(**stores, signing_key=spoilt, audit_key=good)).signing is None
    assert Keys.of(Settings(**stores)).signing is None
