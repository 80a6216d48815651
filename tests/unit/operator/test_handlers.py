"""Every trigger comes down to the namespace of a tenant, and kopf only reads."""

import kopf
import pytest
from operator_objects import assistant

from assistant_crds import naming
from assistant_operator import handlers
from assistant_operator.index import Index
from assistant_operator.liveness import Liveness
from assistant_operator.tenant.snapshot import References

OURS = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY, naming.LABEL_TENANT: "acme"}


@pytest.fixture
def woken():
    return []


@pytest.fixture
def index():
    return Index()


@pytest.fixture
def triggers(woken, index):
    return handlers.Triggers("routes", index, Liveness(300), lambda namespace, changed: woken.append(namespace))


async def test_resources_wake_their_namespace(triggers, woken):
    """An Assistant or KnowledgeBase wakes its namespace, a Tenant the namespace of its name."""
    await triggers.resource(namespace="acme", event={"type": "ADDED", "object": assistant()})
    await triggers.tenant(name="other", event={"type": "DELETED", "object": assistant()})
    assert woken == ["acme", "other"]


async def test_a_status_wakes_nobody(triggers, woken):
    """What the operator writes itself is no news; a changed spec, a deletion or a lost finalizer is."""
    resource = assistant()

    async def event(**changes):
        metadata = {**resource["metadata"], **changes}
        await triggers.resource(namespace="acme", event={"type": "MODIFIED", "object": {"metadata": metadata}})
        return len(woken)

    assert await event() == 1
    assert await event(resourceVersion="2") == 1
    assert await event(generation=2) == 2
    assert await event(generation=2, finalizers=[naming.FINALIZER]) == 3
    assert await event(generation=2, finalizers=[naming.FINALIZER], deletionTimestamp="now") == 4
    asked = {naming.ANNOTATION_REINDEX: "monday"}
    leaving = {"generation": 2, "finalizers": [naming.FINALIZER], "deletionTimestamp": "now"}
    assert await event(**leaving, annotations=asked) == 5
    assert await event(**leaving, annotations=asked | {"other": "x"}) == 5
    await triggers.resource(namespace="acme", event={"type": "DELETED", "object": resource})
    assert len(woken) == 6


async def test_policies_wake_the_tenant_they_are_of(triggers, woken):
    """A policy that somebody changed in the routes namespace is its tenant's matter."""
    await triggers.owned(namespace="routes", labels=OURS, event={"type": "MODIFIED"})
    await triggers.owned(namespace="acme", labels=OURS, event={"type": "MODIFIED"})
    assert woken == ["acme", "acme"]


@pytest.mark.parametrize(
    ("kind", "metadata", "expected"),
    [
        (None, {"finalizers": [naming.FINALIZER]}, False),
        (None, {"finalizers": []}, True),
        (None, {"finalizers": [naming.FINALIZER], "deletionTimestamp": "now"}, True),
        ("ADDED", {"finalizers": []}, True),
        ("MODIFIED", {"finalizers": [naming.FINALIZER]}, True),
    ],
)
async def test_what_somebody_changed_goes_before_what_a_start_lists(index, kind, metadata, expected):
    """After a restart the resources that were handled before wait; new, changed and leaving ones do not."""
    changes = []
    triggers = handlers.Triggers("routes", index, Liveness(300), lambda _, changed: changes.append(changed))
    resource = assistant()
    resource["metadata"] = {**resource["metadata"], **metadata}
    await triggers.resource(namespace="acme", event={"type": kind, "object": resource})
    assert changes == [expected]


async def test_a_secret_of_the_tenants_is_a_change_and_our_own_objects_are_not(index):
    """What the operator or the cluster writes does not go before what people write."""
    changes = []
    triggers = handlers.Triggers("routes", index, Liveness(300), lambda _, changed: changes.append(changed))
    await triggers.owned(namespace="acme", labels=OURS, event={"type": "MODIFIED"})
    await triggers.owned(namespace="acme", labels={}, event={"type": "MODIFIED"})
    await triggers.owned(namespace="acme", labels={}, event={"type": None})
    await triggers.tenant(name="acme", event={"type": None, "object": assistant()})
    assert changes == [False, True, False, False]


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
