"""A tenant with people: its database as the operator makes it, and API processes that share it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import msgspec
from api_process import ApiProcess, api_process, assistant, document
from api_tenant import make_database
from sqlalchemy.engine import make_url

from assistant_api.auth.tokens import SEED_BYTES, encode64
from assistant_cluster import stores
from assistant_crds import naming
from assistant_crds.contracts import TenantConfig, seal

EMAIL, PASSWORD = "admin@acme.invalid", "first-owner-7Kq2mZ"
GOOD_PASSWORD = "larkspur bottom bracket 42"


@dataclass
class AccountsWorld:
    """The tenant; `dsn` is its login role's, `admin_dsn` the server's own user's, who may change everything."""

    key: str
    dsn: str
    admin_dsn: str
    gateway_url: str
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(SEED_BYTES))
    audit_key: bytes = field(default_factory=lambda: secrets.token_bytes(SEED_BYTES))

    def config(self, registration: str = "Invite") -> TenantConfig:
        """The configuration of its pods."""
        made = document(self.gateway_url, [assistant("plain", instructions="")], key=self.key)
        return seal(msgspec.structs.replace(made, registration=registration))

    @contextmanager
    def api(self, folder: Path) -> Iterator[ApiProcess]:
        """An API process, as a pod would be started."""
        admin = folder.with_name(f"{folder.name}-admin")
        admin.mkdir(parents=True)
        (admin / "email").write_text(EMAIL)
        (admin / "password").write_text(PASSWORD)
        keys = {
            naming.SIGNING_KEY: encode64(self.seed).decode(),
            naming.AUDIT_KEY: encode64(self.audit_key).decode(),
        }
        with api_process(folder, self.config(), {"postgres_dsn": self.dsn, **keys}, admin_dir=str(admin)) as api:
            api.wait_ready()
            yield api

    @asynccontextmanager
    async def as_owner(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection that may do with the tables what nobody in the tenant may."""
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            await connection.execute(f"SET ROLE {naming.owner_role(self.key)}")
            yield connection
        finally:
            await connection.close()


async def make_accounts_world(postgres: stores.Postgres, gateway_url: str) -> AccountsWorld:
    """Make a new tenant's database."""
    key = naming.tenant_key(str(uuid4()))
    dsn = await make_database(postgres, key)
    admin = make_url(postgres.dsn).set(database=naming.database(key))
    return AccountsWorld(key, dsn, admin.render_as_string(hide_password=False), gateway_url)


class Caller:
    """Somebody who calls one API process, signed in or not."""

    def __init__(self, client: httpx.AsyncClient, tokens: dict[str, Any] | None = None) -> None:
        self.client = client
        self.tokens = tokens or {}

    @property
    def access(self) -> str:
        """The access token."""
        return str(self.tokens.get("access_token", ""))

    @property
    def user(self) -> str:
        """The id of the user."""
        return str(self.tokens["user_id"])

    async def __call__(self, method: str, path: str, body: Any = None, token: str | None = None) -> httpx.Response:
        """Call; paths are below /api/v1 unless they begin with a slash."""
        held = self.access if token is None else token
        headers = {"authorization": f"Bearer {held}"} if held else {}
        url = path if path.startswith("/") else f"/api/v1/{path}"
        return await self.client.request(method, url, json=body, headers=headers)

    async def sign_in(self, email: str = EMAIL, password: str = PASSWORD) -> Caller:
        """Return the same client, signed in."""
        answer = await Caller(self.client)("POST", "auth/login", {"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        return Caller(self.client, answer.json())

    async def refresh(self, token: str | None = None) -> httpx.Response:
        """Exchange a refresh token, one's own unless it is given."""
        body = {"refresh_token": token or self.tokens["refresh_token"]}
        return await Caller(self.client)("POST", "auth/refresh", body)

    async def invite(self, role: str, **more: Any) -> str:
        """Return the token of an invitation."""
        answer = await self("POST", "invitations", {"role": role, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def register(self, email: str, invitation: str | None = None, **more: Any) -> httpx.Response:
        """Register somebody."""
        body = {"email": email, "password": GOOD_PASSWORD, "name": "Ada", **more}
        if invitation is not None:
            body["invitation"] = invitation
        return await Caller(self.client)("POST", "auth/register", body)

    async def person(self, role: str, email: str) -> Caller:
        """Return somebody new with this role, signed in; the caller invites."""
        answer = await self.register(email, await self.invite(role))
        assert answer.status_code == 201, answer.text
        return Caller(self.client, answer.json())
