"""`/api/v1/audit`: what was done in this tenant, for its administrators."""

from __future__ import annotations

from datetime import UTC, datetime

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromQuery

from assistant_api.audit import service
from assistant_api.audit.repository import Filter
from assistant_api.audit.schemas import AuditPage, AuditReport
from assistant_api.auth.accounts import Accounts
from assistant_api.auth.roles import ADMIN, needs, person
from assistant_api.database.unavailable import DATABASE_AWAY
from assistant_api.errors import invalid_field

_LONGEST = 200


class AuditController(Controller):
    """The audit log."""

    path = "/audit"
    tags = ["People"]
    guards = [person, needs(ADMIN)]
    exception_handlers = DATABASE_AWAY

    @get("/", summary="Read the audit log")
    async def read(  # noqa: PLR0913, PLR0917  each is a parameter of the query
        self,
        accounts: NamedDependency[Accounts],
        action: FromQuery[str | None] = None,
        actor: FromQuery[str | None] = None,
        outcome: FromQuery[str | None] = None,
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        limit: FromQuery[int] = 50,
        cursor: FromQuery[str | None] = None,
    ) -> AuditPage:
        """Return entries, the newest first, those that have all the given properties, from `cursor` on."""
        equal = {"action": action, "actor": actor, "outcome": outcome}
        wanted = Filter(
            {name: _text(name, value) for name, value in equal.items() if value is not None},
            _moment("since", since),
            _moment("until", until),
        )
        return await service.read(accounts.database, wanted, limit, cursor)

    @get("/verify", summary="Verify the audit log")
    async def verify(self, accounts: NamedDependency[Accounts]) -> AuditReport:
        """Compute the chain again, and say where an entry was changed, removed, moved or cut off."""
        return await accounts.audit.verify(accounts.database)


def _text(name: str, value: str) -> str:
    if len(value) > _LONGEST or not value.isprintable():
        raise invalid_field(name, "value")
    return value


def _moment(name: str, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise invalid_field(name, "value") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
