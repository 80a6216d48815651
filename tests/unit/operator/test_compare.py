"""Nothing is written while the live object already is as wanted."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_objects import CREDENTIALS, assistant, knowledge_base, platform, resolved

from assistant_crds import naming
from assistant_operator.compare import digest, is_applied, with_digest
from assistant_operator.desired import build


def wanted(**spec):
    metadata = {"name": "a", "namespace": "acme", "labels": {"x": "y"}}
    return with_digest({"apiVersion": "v1", "kind": "Thing", "metadata": metadata, "spec": spec})


def served(obj):
    """Return the object as the API server gives it back: with more in it."""
    live = copy.deepcopy(obj)
    live["metadata"] |= {"uid": "u", "resourceVersion": "1", "managedFields": [{}]}
    live["status"] = {"phase": "Active"}
    return live


def test_an_object_that_only_gained_fields_is_applied():
    """Defaults, status and metadata that the server added are no difference."""
    obj = wanted(ports=[{"port": 1}], selector={"a": "b"})
    live = served(obj)
    live["spec"] |= {"sessionAffinity": "None"}
    live["spec"]["ports"][0] |= {"protocol": "TCP"}
    live["metadata"]["labels"]["other"] = "label"
    assert is_applied(obj, live)


def test_a_missing_object_is_not_applied():
    """What does not exist has to be written."""
    assert not is_applied(wanted(), None)


@pytest.mark.parametrize(
    "change",
    [
        lambda live: live["spec"]["selector"].update(a="c"),
        lambda live: live["spec"]["ports"].append({"port": 2}),
        lambda live: live["metadata"]["labels"].pop("x"),
        lambda live: live["metadata"]["annotations"].clear(),
        lambda live: live["spec"].pop("ports"),
    ],
)
def test_a_changed_or_missing_field_is_a_difference(change):
    """Whatever we set and somebody changed is written again."""
    obj = wanted(ports=[{"port": 1}], selector={"a": "b"})
    live = served(obj)
    change(live)
    assert not is_applied(obj, live)


def test_a_field_that_is_no_longer_wanted_is_a_difference():
    """The digest tells of fields that we set once and do not want any more."""
    live = served(wanted(selector={"a": "b"}, old="field"))
    assert not is_applied(wanted(selector={"a": "b"}), live)


def test_lists_with_keys_may_hold_items_of_others():
    """A container that somebody injects is not fought: server-side apply would keep it anyway."""
    obj = wanted(containers=[{"name": "api", "image": "i"}])
    live = served(obj)
    live["spec"]["containers"].insert(0, {"name": "proxy", "image": "p"})
    assert is_applied(obj, live)
    live["spec"]["containers"][1]["image"] = "other"
    assert not is_applied(obj, live)


def test_quantities_are_compared_by_value():
    """The server writes 1024Mi as 1Gi; that is the same."""
    obj = wanted(resources={"requests": {"cpu": "0.1"}, "limits": {"memory": "1024Mi"}})
    live = served(obj)
    live["spec"]["resources"] = {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}
    assert is_applied(obj, live)
    live["spec"]["resources"]["limits"]["memory"] = "1.5Gi"
    assert not is_applied(obj, live)


def test_empty_fields_that_the_server_leaves_out_are_no_difference():
    """An empty map or list that comes back as nothing is the same."""
    obj = wanted(podSelector={}, rules=[])
    live = served(obj)
    live["spec"] = {}
    assert is_applied(obj, live)


def test_truth_and_numbers_are_not_confused():
    """In JSON true is not 1."""
    obj = wanted(flag=True)
    live = served(obj)
    live["spec"]["flag"] = 1
    assert not is_applied(obj, live)


def test_the_digest_leaves_itself_out():
    """Applying the digest twice changes nothing."""
    obj = wanted(a=1)
    assert digest(obj) == obj["metadata"]["annotations"][naming.ANNOTATION_APPLIED]
    assert with_digest(obj) == obj


json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1, max_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("pqr", min_size=1, max_size=2), json, max_size=4))
def test_every_object_equals_itself(spec):
    """Whatever is wanted, the same is no difference."""
    assert is_applied(wanted(**spec), served(wanted(**spec)))


def test_every_object_of_a_tenant_equals_itself():
    """The real objects too."""
    desired = build(resolved(assistant(), knowledge_base()), platform(), CREDENTIALS)
    for obj in [*desired.objects, desired.policy_secret]:
        assert is_applied(obj, served(obj))
