"""Passwords: hashed with argon2id in threads of their own, two at once, and refused when they are easy to guess."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from assistant_api.errors import SERVER_BUSY, ApiError, invalid_field

if TYPE_CHECKING:  # imported when somebody signs in
    from argon2 import PasswordHasher

# OWASP's first choice. Two at once take 92 MiB of the pod's memory for as long as they run, some 0.05 s.
MEMORY_KIB, TIME_COST, PARALLELISM = 46 * 1024, 1, 1
MAX_CONCURRENT_HASHES = 2
MAX_WAITING_HASHES = 32
MIN_LENGTH, MAX_LENGTH = 10, 256
MIN_STRENGTH = 3  # of zxcvbn's 0 to 4: safe from guessing offline for a while
# What German-speaking users choose and English lists do not hold; zxcvbn knows these as if they were the user's name.
_COMMON = (
    *("passwort", "geheim", "willkommen", "hallo", "schatz", "fussball", "sommer", "winter", "qwertz", "kennwort"),
    *("deutschland", "berlin", "schalke", "liebe", "engel", "test", "assistant", "admin"),
)
# Of nobody's password: what is computed for an account that does not exist takes as long as for one that does.
_NOBODY = f"$argon2id$v=19$m={MEMORY_KIB},t={TIME_COST},p={PARALLELISM}${'A' * 22}${'A' * 43}"


class Passwords:
    """Hashes and compares; `operations` counts how often argon2 was computed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT_HASHES, thread_name_prefix="password")
        self._waiting = 0
        self.operations = 0

    @cached_property
    def _hasher(self) -> PasswordHasher:
        from argon2 import PasswordHasher  # noqa: PLC0415  see above

        return PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM)

    async def hash(self, password: str) -> str:
        """Return the password's hash, in the PHC format, with a salt of its own."""
        return str(await self._run(lambda: self._hasher.hash(password)))

    async def verify(self, known: str | None, password: str) -> bool:
        """Whether `known` is the hash of `password`; for None, nobody's, the answer takes as long and is False."""
        right = bool(await self._run(lambda: self._matches(known or _NOBODY, password)))
        return right and known is not None

    def is_outdated(self, known: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(known)

    def close(self) -> None:
        """Take no more work."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _matches(self, known: str, password: str) -> bool:
        from argon2.exceptions import Argon2Error, InvalidHashError  # noqa: PLC0415  see above

        try:
            return self._hasher.verify(known, password)
        except (Argon2Error, InvalidHashError):
            return False

    async def _run(self, work: Any) -> object:
        if self._waiting >= MAX_WAITING_HASHES:
            raise ApiError(SERVER_BUSY, retry_after=2)
        self._waiting += 1
        try:
            self.operations += 1
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1


async def check_strength(field: str, password: str, *personal: str) -> None:
    """Raise the 400 that names `field` when the password is short or easy to guess; `personal` is its owner's."""
    if len(password) < MIN_LENGTH:
        raise invalid_field(field, "password_short", least=str(MIN_LENGTH))
    if await asyncio.to_thread(_guessable, password, personal):
        raise invalid_field(field, "password_weak")


def _guessable(password: str, personal: tuple[str, ...]) -> bool:
    from zxcvbn_rs_py import zxcvbn  # noqa: PLC0415  imported when a password is chosen

    texts = [text.lower() for text in personal]
    words = [word for text in texts for word in text.replace("@", " ").replace(".", " ").split()]
    locals_and_joined = [form for text in texts for form in (text.partition("@")[0], text.replace(" ", ""))]
    known = [*_COMMON, *texts, *words, *locals_and_joined]
    return int(zxcvbn(password[:100], known).score) < MIN_STRENGTH


async def normal_email(address: str) -> str:
    """Return an email address in its normal form, without asking whether the domain exists; the 400 for a wrong one."""
    normal = await asyncio.to_thread(_normal_email, address)
    if normal is None:
        raise invalid_field("email", "email")
    return normal


def _normal_email(address: str) -> str | None:
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415  imported when somebody registers

    try:
        return validate_email(address, check_deliverability=False).normalized
    except EmailNotValidError:
        return None
