"""What the stores hold of a tenant, read with the platform's own credentials past every NetworkPolicy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import redis
from e2e_platform import PLATFORM, ROUTES, Platform, Tenant

from assistant_crds import naming

WEAVIATE_SECONDS = 20


@dataclass
class Stores:
    """The three stores and the routes namespace of a platform."""

    platform: Platform

    def traces(self, key: str) -> dict[str, list[str]]:
        """Everything that carries a tenant's name, by where it is; empty when nothing is left."""
        found = {
            "databases": self._postgres("SELECT datname FROM pg_database WHERE datname LIKE $1", key),
            "roles": self._postgres("SELECT rolname FROM pg_roles WHERE rolname LIKE $1", key),
            **self._redis(key),
            **self._weaviate(key),
            "policies": [
                secret["metadata"]["name"]
                for secret in self.platform.cluster.list("secrets", ROUTES)
                if secret["metadata"]["name"] == naming.policy_secret(key)
            ],
        }
        return {place: sorted(names) for place, names in found.items() if names}

    def postgres_dsn(self, dsn: str) -> str:
        """The same DSN for this machine."""
        port = self.platform.forward(PLATFORM, "service/assistant-postgres", 5432)
        return _at(dsn, "127.0.0.1", port)

    def redis_url(self, url: str) -> str:
        """The same Redis URL for this machine."""
        return _at(url, "127.0.0.1", self.platform.forward(PLATFORM, "service/assistant-redis", 6379))

    def weaviate(self, path: str, api_key: str | None = None, **options: object) -> httpx.Response:
        """Ask Weaviate's REST API; with the root user's key by default."""
        port = self.platform.forward(PLATFORM, "service/assistant-weaviate", 8080)
        key = api_key or self.platform.secret(PLATFORM, "assistant-weaviate")["api-key"]
        method = str(options.pop("method", "GET"))
        return httpx.request(
            method,
            f"http://127.0.0.1:{port}/v1{path}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=WEAVIATE_SECONDS,
            trust_env=False,
            **options,  # type: ignore[arg-type]
        )

    def plant_key(self, tenant: Tenant) -> None:
        """Leave a key of the tenant that does not expire in Redis, as the gateway could; tenants may only PING."""
        url = self.redis_url(self.platform.secret(PLATFORM, "assistant-redis")["gateway-url"])
        with redis.Redis.from_url(url, socket_timeout=10, protocol=2, driver_info=None) as client:
            client.hset(f"{naming.quota_prefix(tenant.store_key)}planted", "calls", "1")

    def _postgres(self, query: str, key: str) -> list[str]:
        dsn = self.postgres_dsn(self.platform.secret(PLATFORM, "assistant-postgres")["dsn"])

        async def ask() -> list[str]:
            connection = await asyncpg.connect(dsn, timeout=10)
            try:
                return [row[0] for row in await connection.fetch(query, f"{key}%")]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def _redis(self, key: str) -> dict[str, list[str]]:
        url = self.redis_url(self.platform.secret(PLATFORM, "assistant-redis")["operator-url"])
        with redis.Redis.from_url(url, socket_timeout=10, protocol=2, driver_info=None) as client:
            keys = [name.decode() for name in client.scan_iter(match=f"*{key}*", count=1000)]
            users = [user for user in map(_text, client.acl_users()) if user == naming.redis_user(key)]
        return {"redis keys": keys, "redis users": users}

    def _weaviate(self, key: str) -> dict[str, list[str]]:
        tenants = self.weaviate(f"/schema/{naming.VECTOR_COLLECTION}/tenants")
        names = [tenant["name"] for tenant in tenants.json()] if tenants.is_success else []
        users = [user["userId"] for user in self.weaviate("/users/db").json()]
        roles = [role["name"] for role in self.weaviate("/authz/roles").json()]
        return {
            "vector tenants": [name for name in names if name.startswith(key)],
            "vector users": [name for name in users if name.startswith(key)],
            "vector roles": [name for name in roles if name.startswith(key)],
        }


def _at(address: str, host: str, port: int) -> str:
    parts = urlsplit(address)
    credentials = f"{parts.netloc.rsplit('@', 1)[0]}@" if "@" in parts.netloc else ""
    return urlunsplit(parts._replace(netloc=f"{credentials}{host}:{port}"))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
