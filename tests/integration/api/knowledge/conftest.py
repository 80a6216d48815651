"""A tenant as the operator would make it: its own database, its own vector tenants, credentials for nothing else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import weaviate
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from weaviate.classes.config import Configure, DataType, Property, Tokenization
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.classes.rbac import Permissions

from assistant_api import database
from assistant_cluster import stores
from assistant_crds import naming
from assistant_crds.contracts import KnowledgeBaseConfig, TenantConfig, TenantIdentity

DIMENSIONS = 256
MIGRATIONS = Path(database.__file__).parent / "migrations"


@dataclass
class Tenant:
    """One tenant in the stores; `dsn` and `vector_key` are what its pods get."""

    key: str
    dsn: str
    owner_dsn: str
    weaviate: stores.Weaviate
    vector_key: str
    knowledge_bases: list[KnowledgeBaseConfig]

    @property
    def config(self) -> TenantConfig:
        """The configuration its pods would be given."""
        return TenantConfig(
            tenant=TenantIdentity(namespace="acme", uid=self.key, key=self.key),
            generation="1",
            gateway_url="http://gateway.invalid",
            collection=naming.VECTOR_COLLECTION,
            api_keys=[],
            assistants=[],
            knowledge_bases=self.knowledge_bases,
        )


def knowledge_base(tenant: str, name: str, **changes: object) -> KnowledgeBaseConfig:
    """A small knowledge base; `changes` replace its fields."""
    fields: dict[str, object] = {
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
    return KnowledgeBaseConfig(**fields)  # type: ignore[arg-type]


async def _make_database(operator_dsn: str, key: str) -> str:
    """Make the tenant's database as the operator does and return the DSN of its login role."""
    password = secrets.token_hex(16)
    owner, login = naming.owner_role(key), naming.login_role(key)
    operator = await asyncpg.connect(operator_dsn)
    try:
        await operator.execute(f"CREATE ROLE {owner} NOLOGIN")
        await operator.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{password}' CONNECTION LIMIT 40")
        await operator.execute(f"GRANT {owner} TO assistant_operator")
        await operator.execute(f"CREATE DATABASE {key} OWNER {owner}")
        await operator.execute(f"REVOKE ALL ON DATABASE {key} FROM PUBLIC")
        await operator.execute(f"GRANT CONNECT ON DATABASE {key} TO {login}, assistant_operator")
    finally:
        await operator.close()
    await migrate(operator_dsn, key)
    url = make_url(operator_dsn).set(database=key, username=login, password=password)
    return url.render_as_string(hide_password=False)


async def migrate(operator_dsn: str, key: str, revision: str = "head") -> None:
    """Migrate as the operator does: logged in as itself, acting as the owner."""
    owner, login = naming.owner_role(key), naming.login_role(key)
    url = make_url(operator_dsn).set(database=key, drivername="postgresql+asyncpg")
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SET ROLE {owner}"))
            for kind, verbs in (("TABLES", "SELECT, INSERT, UPDATE, DELETE"), ("SEQUENCES", "USAGE")):
                await connection.execute(text(f"ALTER DEFAULT PRIVILEGES GRANT {verbs} ON {kind} TO {login}"))
            await connection.run_sync(upgrade, revision)
    finally:
        await engine.dispose()


def upgrade(connection: Connection, revision: str) -> None:
    """Run the package's migrations on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@pytest.fixture(scope="session")
def vector_root(weaviate_store: stores.Weaviate) -> Iterator[weaviate.WeaviateClient]:
    """Weaviate as the operator's root user, with the platform's collection."""
    host, port = weaviate_store.grpc.split(":")
    client = weaviate.connect_to_custom(
        http_host=host,
        http_port=weaviate_store.port,
        http_secure=False,
        grpc_host=host,
        grpc_port=int(port),
        grpc_secure=False,
        auth_credentials=Auth.api_key(weaviate_store.api_key),
        additional_config=AdditionalConfig(timeout=Timeout(init=5, query=20, insert=20)),
        skip_init_checks=True,
    )
    field_text = {"data_type": DataType.TEXT, "tokenization": Tokenization.FIELD}
    client.collections.create(
        naming.VECTOR_COLLECTION,
        vector_config=Configure.Vectors.self_provided(
            vector_index_config=Configure.VectorIndex.hnsw(
                distance_metric=weaviate.classes.config.VectorDistances.COSINE
            )
        ),
        multi_tenancy_config=Configure.multi_tenancy(enabled=True, auto_tenant_creation=False),
        inverted_index_config=Configure.inverted_index(stopwords_preset=weaviate.classes.config.StopwordsPreset.NONE),
        properties=[
            Property(name="document_id", **field_text),
            Property(name="chunk_index", data_type=DataType.INT),
            Property(name="document_name", **field_text),
            Property(name="page", data_type=DataType.INT),
            Property(name="text", data_type=DataType.TEXT, tokenization=Tokenization.WORD),
        ],
    )
    yield client
    client.close()


def make_tenant(
    postgres: stores.Postgres,
    weaviate_store: stores.Weaviate,
    vector_root: weaviate.WeaviateClient,
    names: Sequence[str] = ("handbook", "products"),
) -> Tenant:
    """Make a new tenant with knowledge bases of these names."""
    key = naming.tenant_key(str(uuid4()))
    dsn = asyncio.run(_make_database(postgres.dsn, key))
    bases = [knowledge_base(key, name) for name in names]
    vector_root.collections.use(naming.VECTOR_COLLECTION).tenants.create([base.key for base in bases])
    vector_key = vector_root.users.db.create(user_id=naming.vector_user(key))
    tenants = [base.key for base in bases]
    vector_root.roles.create(
        role_name=naming.vector_user(key),
        permissions=[
            Permissions.data(
                collection=naming.VECTOR_COLLECTION,
                tenant=tenants,
                create=True,
                read=True,
                update=True,
                delete=True,
            ),
            Permissions.collections(collection=naming.VECTOR_COLLECTION, read_config=True),
            Permissions.tenants(collection=naming.VECTOR_COLLECTION, tenant=tenants, read=True),
        ],
    )
    vector_root.users.db.assign_roles(user_id=naming.vector_user(key), role_names=naming.vector_user(key))
    return Tenant(key, dsn, postgres.dsn, weaviate_store, vector_key, bases)


@pytest.fixture
def tenant(postgres: stores.Postgres, weaviate_store: stores.Weaviate, vector_root: weaviate.WeaviateClient) -> Tenant:
    """A tenant of its own for one test."""
    return make_tenant(postgres, weaviate_store, vector_root)
