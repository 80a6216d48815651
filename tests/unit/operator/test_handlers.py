"""Every trigger comes down to the namespace of a tenant, and kopf only reads."""

import kopf
import pytest
from operator_objects import assistant

from assistant_crds import naming
from assistant_operator import handlers
from assistant_operator.index import Index
from assistant_operator.liveness import Liveness
from assistant_operator.snapshot import References

OURS = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY, naming.LABEL_TENANT: "acme"}


@pytest.fixture
def woken():
    return []


@pytest.fixture
def index():
    return Index()


@pytest.fixture
def triggers(woken, index):
    return handlers.Triggers("routes", index, Liveness(300), woken.append)


async def test_resources_wake_their_namespace(triggers, woken):
    """An Assistant or KnowledgeBase wakes its namespace, a Tenant the namespace of its name."""
    await triggers.resource(namespace="acme", event={"type": "ADDED", "object": assistant()})
    await triggers.tenant(name="other", event={"type": "DELETED", "object": assistant()})
    assert woken == ["acme", "other"]


async def test_policies_wake_the_tenant_they_are_of(triggers, woken):
    """A policy that somebody changed in the routes namespace is its tenant's matter."""
    await triggers.owned(namespace="routes", labels=OURS)
    await triggers.owned(namespace="acme", labels=OURS)
    assert woken == ["acme", "acme"]


def test_only_secrets_that_matter_pass(triggers, index):
    """Ours, and those that a resource refers to; as soon as it does, and no longer than it does."""
    foreign = {"name": "llm", "namespace": "acme", "labels": {}}
    assert triggers.secret_matters(name="x", namespace="acme", labels=OURS)
    assert not triggers.secret_matters(**foreign)
    index.put("acme", References(frozenset({"llm"}), frozenset({"prompts"})))
    assert triggers.secret_matters(**foreign)
    assert not triggers.secret_matters(**foreign | {"namespace": "other"})
    assert triggers.config_map_matters(name="prompts", namespace="acme", labels={})
    index.put("acme", References())
    assert not triggers.secret_matters(**foreign)


def test_every_kind_is_watched(triggers):
    """Resources, references, and each kind of object that the operator makes."""
    registry = kopf.OperatorRegistry()
    handlers.register(registry, triggers)
    watched = {
        handler.selector.any_name or handler.selector.plural for handler in registry._watching.get_all_handlers()
    }
    assert watched >= {
        "assistants",
        "knowledgebases",
        "tenants",
        "deployments",
        "services",
        "configmaps",
        "secrets",
        "serviceaccounts",
        "networkpolicies",
        "poddisruptionbudgets",
        "pods",
    }


def test_kopf_is_a_reader():
    """No peering, no events, no scanning, and a finalizer that nobody has."""
    settings = kopf.OperatorSettings()
    handlers.configure(settings)
    assert settings.peering.standalone
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.persistence.finalizer not in {naming.FINALIZER, "kopf.zalando.org/KopfFinalizerMarker"}
