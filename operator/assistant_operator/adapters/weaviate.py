"""One Weaviate collection for all; per tenant a user whose role names exactly its own vector tenants.

A vector tenant belongs to one knowledge base. The server makes API keys itself, so a key is written into the tenant's
Secret after it was made; a key that was lost on the way is made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import weaviate
from grpc import RpcError
from httpx import HTTPError
from weaviate.classes.config import Configure, DataType, Property, StopwordsPreset, Tokenization, VectorDistances
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.classes.rbac import Permissions
from weaviate.exceptions import WeaviateBaseError

from assistant_crds import naming
from assistant_observability import metrics
from assistant_operator.errors import StoreUnreachableError

STORE = "weaviate"
TIMEOUT_SECONDS = 8
COLLECTION = naming.VECTOR_COLLECTION
# A namespace may have hundreds of knowledge bases: they are granted in portions, each with the whole time.
PORTION = 50
COUNTED_AT_ONCE = 8
_SPELLINGS = Property(
    name=naming.VECTOR_SPELLINGS,
    data_type=DataType.TEXT,
    tokenization=Tokenization.WORD,
    index_searchable=True,
    index_filterable=False,
)


class Weaviate:
    """Users, roles and vector tenants on one server."""

    def __init__(self, url: str, grpc: str, api_key: str, guard: Callable[[], None]) -> None:
        self._url = url.rstrip("/")
        self._grpc = grpc
        self._api_key = api_key
        self._guard = guard
        self._client: weaviate.WeaviateAsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._counting = asyncio.Semaphore(COUNTED_AT_ONCE)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def ping(self) -> str:
        """Return nothing in particular: the server has no name for its own life."""
        async with self._errors("ping"):
            # Unlike the client's `is_ready`, this asks for our credential too, and prints nothing.
            await (await self._connected()).get_meta()
        return ""

    async def ensure_user(self, tenant: str, api_key: str) -> str:
        """Make the tenant's user exist; return its API key: the given one if it works, a new one otherwise."""
        user = naming.vector_user(tenant)
        async with self._errors("ensure_user"):
            client = await self._connected()
            if await client.users.db.get(user_id=user) is None:
                self._guard()
                return await client.users.db.create(user_id=user)
            if api_key and await self._belongs(api_key, user):
                return api_key
            self._guard()
            return await client.users.db.rotate_key(user_id=user)

    async def ensure_access(self, tenant: str, knowledge_bases: Iterable[str]) -> bool:
        """Make the collection, the vector tenants and the role be as wanted; return whether anything was written."""
        keys = sorted(knowledge_bases)
        async with self._errors("ensure_access"):
            client = await self._connected()
            changed = await self._ensure_collection(client)
        for first in range(0, len(keys), PORTION):
            async with self._errors("ensure_vector_tenants"):
                changed |= await self._ensure_vector_tenants(client, keys[first : first + PORTION])
        return await self._ensure_role(client, tenant, keys) or changed

    async def vectors(self, knowledge_base: str) -> int:
        """Return how many vectors a knowledge base has; 0 when its vector tenant does not exist."""
        async with self._counting, self._errors("vectors"):
            client = await self._connected()
            if not await self._exists(client, knowledge_base):
                return 0
            collection = client.collections.use(COLLECTION).with_tenant(knowledge_base)
            result = await collection.aggregate.over_all(total_count=True)
            return result.total_count or 0

    async def remove_knowledge_base(self, knowledge_base: str) -> None:
        """Remove the vector tenant of a knowledge base, with every vector in it."""
        async with self._errors("remove_knowledge_base"):
            client = await self._connected()
            if await self._exists(client, knowledge_base):
                self._guard()
                await client.collections.use(COLLECTION).tenants.remove([knowledge_base])

    async def knowledge_bases(self, tenant: str) -> list[str]:
        """Return every vector tenant of the tenant, known to the cluster or not."""
        async with self._errors("knowledge_bases"):
            client = await self._connected()
            if not await client.collections.exists(COLLECTION):
                return []
            names = await client.collections.use(COLLECTION).tenants.get()
            return sorted(name for name in names if name.startswith(f"{tenant}_"))

    async def remove_user(self, tenant: str) -> None:
        """Remove the tenant's user and role."""
        user = naming.vector_user(tenant)
        async with self._errors("remove_user"):
            client = await self._connected()
            if await client.users.db.get(user_id=user) is not None:
                self._guard()
                await client.users.db.delete(user_id=user)
            if await client.roles.get(role_name=user) is not None:
                self._guard()
                await client.roles.delete(role_name=user)

    async def leftovers(self, tenant: str) -> list[str]:
        """Return the names of what the tenant still has."""
        user = naming.vector_user(tenant)
        found = await self.knowledge_bases(tenant)
        async with self._errors("leftovers"):
            client = await self._connected()
            if await client.users.db.get(user_id=user) is not None:
                found.append(f"user {user}")
            if await client.roles.get(role_name=user) is not None:
                found.append(f"role {user}")
        return found

    async def _ensure_collection(self, client: weaviate.WeaviateAsyncClient) -> bool:
        if await client.collections.exists(COLLECTION):
            return await self._ensure_spellings(client)
        self._guard()
        await client.collections.create(
            COLLECTION,
            properties=[
                Property(name="document_id", data_type=DataType.TEXT, tokenization=Tokenization.FIELD),
                Property(name="chunk_index", data_type=DataType.INT),
                Property(name="document_name", data_type=DataType.TEXT, tokenization=Tokenization.FIELD),
                Property(name="page", data_type=DataType.INT),
                Property(name="text", data_type=DataType.TEXT, tokenization=Tokenization.WORD, index_searchable=True),
                _SPELLINGS,
            ],
            vector_config=Configure.Vectors.self_provided(
                vector_index_config=Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE)
            ),
            # Stop words of one language are words of another.
            inverted_index_config=Configure.inverted_index(stopwords_preset=StopwordsPreset.NONE),
            multi_tenancy_config=Configure.multi_tenancy(enabled=True, auto_tenant_creation=False),
        )
        return True

    async def _ensure_spellings(self, client: weaviate.WeaviateAsyncClient) -> bool:
        """Add what collections of earlier releases lack: what is in them stays, and is found as before."""
        collection = client.collections.use(COLLECTION)
        if any(each.name == _SPELLINGS.name for each in (await collection.config.get()).properties):
            return False
        self._guard()
        await collection.config.add_property(_SPELLINGS)
        return True

    async def _ensure_vector_tenants(self, client: weaviate.WeaviateAsyncClient, keys: list[str]) -> bool:
        found = await client.collections.use(COLLECTION).tenants.get_by_names(keys)
        missing = [key for key in keys if key not in found]
        if missing:
            self._guard()
            await client.collections.use(COLLECTION).tenants.create(missing)
        return bool(missing)

    async def _ensure_role(self, client: weaviate.WeaviateAsyncClient, tenant: str, keys: list[str]) -> bool:
        name = naming.vector_user(tenant)
        wanted = _permissions(keys)
        changed = False
        async with self._errors("ensure_role"):
            role = await client.roles.get(role_name=name)
            if role is None:
                self._guard()
                role = await client.roles.create(role_name=name, permissions=wanted[:PORTION])
                changed = True
        # Grants come first: a role that loses its last permission is removed by the server.
        have, want = _flat(role.permissions), _flat(wanted)
        lacking = [permission for permission in wanted if not _flat([permission]) <= have]
        excess = [permission for permission in role.permissions if not _flat([permission]) <= want]
        for permissions, change in ((lacking, client.roles.add_permissions), (excess, client.roles.remove_permissions)):
            for first in range(0, len(permissions), PORTION):
                self._guard()
                async with self._errors("ensure_role"):
                    await change(role_name=name, permissions=permissions[first : first + PORTION])
                changed = True
        async with self._errors("ensure_role"):
            user = await client.users.db.get(user_id=name)
            if user is not None and set(user.role_names) != {name}:
                self._guard()
                await client.users.db.assign_roles(user_id=name, role_names=name)
                strangers = sorted(set(user.role_names) - {name})
                if strangers:
                    await client.users.db.revoke_roles(user_id=name, role_names=strangers)
                changed = True
        return changed

    @staticmethod
    async def _exists(client: weaviate.WeaviateAsyncClient, key: str) -> bool:
        return bool(await client.collections.use(COLLECTION).tenants.exists(key))

    async def _belongs(self, api_key: str, user: str) -> bool:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        headers = {"Authorization": f"Bearer {api_key}"}
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(f"{self._url}/v1/users/own-info") as response,
        ):
            if response.status not in {200, 401}:
                raise ConnectionError(f"status {response.status}")
            return response.status == 200 and (await response.json()).get("username") == user

    async def _connected(self) -> weaviate.WeaviateAsyncClient:
        async with self._connecting:
            if self._client is None:
                http, (grpc_host, _, grpc_port) = urlsplit(self._url), self._grpc.rpartition(":")
                secure = http.scheme == "https"
                client = weaviate.use_async_with_custom(
                    http_host=http.hostname or "",
                    http_port=http.port or (443 if secure else 80),
                    http_secure=secure,
                    grpc_host=grpc_host,
                    grpc_port=int(grpc_port),
                    grpc_secure=secure,
                    auth_credentials=Auth.api_key(self._api_key),
                    additional_config=AdditionalConfig(
                        timeout=Timeout(init=TIMEOUT_SECONDS, query=TIMEOUT_SECONDS, insert=TIMEOUT_SECONDS)
                    ),
                    skip_init_checks=True,
                )
                await client.connect()
                self._client = client
            return self._client

    @asynccontextmanager
    async def _errors(self, operation: str) -> AsyncIterator[None]:
        try:
            # The client repeats failed gRPC calls for a minute by itself.
            async with asyncio.timeout(TIMEOUT_SECONDS):
                yield
        except (WeaviateBaseError, HTTPError, RpcError, aiohttp.ClientError, OSError, TimeoutError) as error:
            metrics.STORE_OPERATIONS.labels(STORE, operation, "error").inc()
            raise StoreUnreachableError(STORE, f"{operation} failed ({type(error).__name__}).") from error
        metrics.STORE_OPERATIONS.labels(STORE, operation, "ok").inc()


def _permissions(keys: list[str]) -> list[Any]:
    """Return the smallest permissions with which searching and writing work on exactly these vector tenants."""
    permissions: list[Any] = [*Permissions.collections(collection=COLLECTION, read_config=True)]
    for key in keys:
        permissions += Permissions.data(
            collection=COLLECTION, tenant=key, create=True, read=True, update=True, delete=True
        )
        permissions += Permissions.tenants(collection=COLLECTION, tenant=key, read=True)
    return permissions


def _flat(permissions: Iterable[Any]) -> set[tuple[str, ...]]:
    """Return one tuple per permission and action, so that sets of them can be compared."""
    return {
        (_kind(permission), str(action.value), *_fields(permission))
        for permission in permissions
        for action in permission.actions
    }


def _kind(permission: Any) -> str:
    return type(permission).__name__.removeprefix("_").removesuffix("Output")


def _fields(permission: Any) -> tuple[str, ...]:
    fields = permission.model_dump(exclude={"actions"})
    return tuple(f"{name}={fields[name]}" for name in sorted(fields))
