"""The stores that integration tests share: started when first asked for, one of each per session.

A test that stops, freezes or fills a store takes one of its own from `assistant_cluster.stores`.
"""

from collections.abc import Iterator

import pytest

from assistant_cluster import stores


@pytest.fixture(scope="session")
def postgres() -> Iterator[stores.Postgres]:
    """Postgres; `.dsn` logs in as the operator's role, which is no superuser."""
    with stores.postgres() as store:
        yield store


@pytest.fixture(scope="session")
def redis_store() -> Iterator[stores.Redis]:
    """Redis; `.operator_url` may make users, `.gateway_url` may count."""
    with stores.redis() as store:
        yield store


@pytest.fixture(scope="session")
def weaviate_store() -> Iterator[stores.Weaviate]:
    """Weaviate; `.api_key` is the root user's."""
    with stores.weaviate() as store:
        yield store
