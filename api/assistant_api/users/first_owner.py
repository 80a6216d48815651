"""The tenant's first owner, from the Secret that the operator made: whoever may read it may sign in."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from assistant_api.audit.service import Event, Origin
from assistant_api.auth.accounts import Accounts
from assistant_api.users import repository
from assistant_api.users.repository import OWNER, NewUser


async def ensure_owner(accounts: Accounts, origin: Origin) -> None:
    """Make the first owner if there never was one and the Secret is there; later the Secret means nothing."""
    if accounts.owner_is_there:
        return
    async with accounts.database.reading() as connection:
        accounts.owner_is_there = await repository.has_owner(connection)
    if accounts.owner_is_there:
        return
    email, password = (_read(accounts.keys.admin_dir / name) for name in ("email", "password"))
    if not email or not password:
        return
    hashed = await accounts.passwords.hash(password)
    new = NewUser(uuid4(), email, repository.email_key(email), email.partition("@")[0], OWNER, hashed)
    async with accounts.database.transaction() as connection:
        if await repository.add(connection, new):  # not if another pod was faster
            event = Event("first_owner_created", actor_kind="platform", target=str(new.id))
            await accounts.audit.record(connection, event, origin)
    accounts.owner_is_there = True


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
