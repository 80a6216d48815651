"""Derived names are valid where they are used, and no two tenants share one."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from assistant_crds import naming

uids = st.uuids().map(str)


@given(uids)
def test_names_fit_the_stores(uid: str) -> None:
    """Postgres allows 63 bytes, Weaviate tenants [A-Za-z0-9_-]{1,64}, Kubernetes names lower case and dashes."""
    key = naming.tenant_key(uid)
    assert re.fullmatch(r"t_[0-9a-f]{10}", key)
    for name in (naming.database(key), naming.owner_role(key), naming.login_role(key)):
        assert re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", naming.knowledge_base_key(key, uid))
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", naming.policy_secret(key))


@given(uids, uids)
def test_two_namespaces_share_no_name(one: str, other: str) -> None:
    """Different UIDs give different names in every store, also under one Kubernetes name."""
    a, b = naming.tenant_key(one), naming.tenant_key(other)
    assert (a == b) == (one == other)
    assert (naming.knowledge_base_key(a, one) == naming.knowledge_base_key(a, other)) == (one == other)


def test_a_tenant_cannot_reach_its_own_quota_counters() -> None:
    """The gateway's keys lie outside the prefix that a tenant's Redis user may touch."""
    key = naming.tenant_key("uid")
    assert not naming.quota_prefix(key).startswith(naming.redis_prefix(key))
    assert f"{{{key}}}" in naming.quota_prefix(key)
