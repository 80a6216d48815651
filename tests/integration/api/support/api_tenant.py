"""A tenant in real stores, made by the operator's own code: its credentials reach what is its own and nothing else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy.engine import make_url

from assistant_api import database
from assistant_api.clients import Database, VectorStore
from assistant_cluster import stores
from assistant_crds import naming
from assistant_crds.contracts import KnowledgeBaseConfig, TenantConfig, TenantIdentity
from assistant_operator.adapters import postgres as operator_postgres
from assistant_operator.adapters.migrations import Migrations
from assistant_operator.adapters.weaviate import Weaviate
from assistant_operator.errors import StoreUnreachableError

DIMENSIONS = 256
MIGRATIONS = Path(database.__file__).parent / "migrations"


def _allowed() -> None:
    """The operator's guard: whether it may write. Here it always may."""


@dataclass
class Tenant:
    """One tenant; `dsn` and `vector_key` are what its pods get."""

    key: str
    postgres: stores.Postgres
    weaviate: stores.Weaviate
    dsn: str
    vector_key: str
    knowledge_bases: list[KnowledgeBaseConfig] = field(default_factory=list)

    @property
    def handbook(self) -> KnowledgeBaseConfig:
        """Its first knowledge base."""
        return self.knowledge_bases[0]

    def config(self, gateway_url: str = "http://gateway.invalid") -> TenantConfig:
        """The configuration its pods would be given."""
        return TenantConfig(
            tenant=TenantIdentity(namespace="acme", uid=self.key, key=self.key),
            generation="1",
            gateway_url=gateway_url,
            collection=naming.VECTOR_COLLECTION,
            api_keys=[],
            assistants=[],
            knowledge_bases=self.knowledge_bases,
        )

    def mounted(self) -> dict[str, str]:
        """The files of the Secret that its pods mount; Redis is not part of it."""
        return {
            "postgres_dsn": self.dsn,
            "redis_url": "redis://nobody:pw@127.0.0.1:1",
            "weaviate_url": self.weaviate.url,
            "weaviate_grpc": self.weaviate.grpc,
            "weaviate_api_key": self.vector_key,
            naming.SIGNING_KEY: "s" * 43,
            naming.AUDIT_KEY: "a" * 43,
        }

    def database(self) -> Database:
        """A pool on its database, as its login role."""
        return Database(self.dsn)

    def vector_store(self) -> VectorStore:
        """A connection to Weaviate, as its user."""
        return VectorStore(self.weaviate.url, self.weaviate.grpc, self.vector_key)

    def operator_database(self) -> operator_postgres.Postgres:
        """Postgres as the operator sees it."""
        return operator_postgres.Postgres(self.postgres.dsn, Migrations(MIGRATIONS), _allowed)

    def operator_vectors(self) -> Weaviate:
        """Weaviate as the operator sees it; to be closed."""
        return Weaviate(self.weaviate.url, self.weaviate.grpc, self.weaviate.api_key, _allowed)


def knowledge_base(tenant: str, name: str, **changes: Any) -> KnowledgeBaseConfig:
    """A small knowledge base; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "name": name,
        "key": naming.knowledge_base_key(tenant, str(uuid4())),
        "display_name": name.title(),
        "dimensions": DIMENSIONS,
        "max_tokens": 60,
        "overlap_tokens": 10,
        "max_documents": 100,
        "max_bytes": 100_000_000,
        **changes,
    }
    return KnowledgeBaseConfig(**fields)


async def make_tenant(
    postgres: stores.Postgres, weaviate: stores.Weaviate, names: Sequence[str] = ("handbook", "products")
) -> Tenant:
    """Make a new tenant with knowledge bases of these names, the way the operator does."""
    key = naming.tenant_key(str(uuid4()))
    bases = [knowledge_base(key, name) for name in names]
    tenant = Tenant(key, postgres, weaviate, await make_database(postgres, key), "", bases)
    operator = tenant.operator_vectors()
    try:
        await _reached(operator)
        tenant.vector_key = await operator.ensure_user(key, "")
        await operator.ensure_access(key, [base.key for base in bases])
    finally:
        await operator.close()
    return tenant


async def _reached(vectors: Weaviate) -> None:
    """Wait until Weaviate has answered: the first call imports its client, for longer than a call may take."""
    async with asyncio.timeout(60):
        while True:
            try:
                await vectors.ping()
            except StoreUnreachableError:
                await asyncio.sleep(0.1)
            else:
                return


async def make_database(postgres: stores.Postgres, key: str) -> str:
    """Make the tenant's database the way the operator does; return the DSN that its pods get."""
    password = secrets.token_hex(16)
    operator = operator_postgres.Postgres(postgres.dsn, Migrations(MIGRATIONS), _allowed)
    await operator.ensure(operator_postgres.Database(key, password, connections=40))
    login = make_url(postgres.dsn).set(
        database=naming.database(key), username=naming.login_role(key), password=password
    )
    return login.render_as_string(hide_password=False)
