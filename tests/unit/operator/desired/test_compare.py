"""Nothing is written while the live object already is as wanted."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_objects import CREDENTIALS, assistant, knowledge_base, platform, resolved

from assistant_crds import naming
from assistant_operator.desired import build
from assistant_operator.desired.compare import changed_by_others, differences, digest, is_applied, with_digest


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


def test_items_of_lists_with_keys_may_come_in_another_order():
    """The API server keeps such lists in an order of its own; what somebody added to them is a difference."""
    obj = wanted(containers=[{"name": "api", "image": "i"}, {"name": "b", "image": "j"}])
    live = served(obj)
    live["spec"]["containers"].reverse()
    assert is_applied(obj, live)
    live["spec"]["containers"].insert(0, {"name": "proxy", "image": "p"})
    assert [str(found) for found in differences(obj, live)] == ["spec.containers[proxy] (added)"]


def objects():
    desired = build(resolved(assistant(), knowledge_base()), platform(), CREDENTIALS)
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in desired.objects}


ADDED = [
    ("Service", naming.API, "spec/selector/extra", "x"),
    ("Service", naming.API, "spec/externalIPs", ["192.0.2.1"]),
    ("Service", naming.API, "spec/publishNotReadyAddresses", True),
    ("Service", naming.API, "spec/sessionAffinity", "ClientIP"),
    ("Service", naming.API, "spec/ports/0/nodePort", 30000),
    ("NetworkPolicy", "assistant-default-deny", "spec/podSelector/matchLabels/extra", "x"),
    ("NetworkPolicy", "assistant-default-deny", "spec/podSelector/matchExpressions", [{"key": "a"}]),
    ("NetworkPolicy", "assistant-default-deny", "spec/ingress", [{}]),
    ("NetworkPolicy", naming.API, "spec/ingress/0/from/0/namespaceSelector", {}),
    ("NetworkPolicy", naming.API, "spec/egress/1/to/0/podSelector/matchLabels", {}),
    ("Deployment", naming.API, "spec/paused", True),
    ("Deployment", naming.API, "spec/minReadySeconds", 600),
    ("Deployment", naming.API, "spec/selector/matchLabels/extra", "x"),
    ("Deployment", naming.API, "spec/template/metadata/labels/extra", "x"),
    ("Deployment", naming.API, "spec/template/spec/hostNetwork", True),
    ("Deployment", naming.API, "spec/template/spec/hostUsers", False),
    ("Deployment", naming.API, "spec/template/spec/nodeSelector", {"a": "b"}),
    ("Deployment", naming.API, "spec/template/spec/tolerations", [{}]),
    ("Deployment", naming.API, "spec/template/spec/initContainers", [{"name": "x", "image": "y"}]),
    ("Deployment", naming.API, "spec/template/spec/containers/-", {"name": "proxy", "image": "p"}),
    ("Deployment", naming.API, "spec/template/spec/containers/0/env/-", {"name": "X", "value": "y"}),
    ("Deployment", naming.API, "spec/template/spec/containers/0/env/-", {"name": "API_PORT", "value": "1"}),
    ("Deployment", naming.API, "spec/template/spec/containers/0/envFrom", [{"secretRef": {"name": "x"}}]),
    ("Deployment", naming.API, "spec/template/spec/containers/0/command", ["sleep"]),
    ("Deployment", naming.API, "spec/template/spec/containers/0/volumeMounts/-", {"name": "x", "mountPath": "/x"}),
    ("Deployment", naming.API, "spec/template/spec/containers/0/securityContext/runAsUser", 0),
    ("Deployment", naming.API, "spec/template/spec/containers/0/securityContext/runAsNonRoot", False),
    ("Deployment", naming.API, "spec/template/spec/containers/0/securityContext/capabilities/add", ["NET_RAW"]),
    ("Deployment", naming.API, "spec/template/spec/containers/0/resources/limits/cpu", "1m"),
    ("Deployment", naming.API, "spec/template/spec/containers/0/startupProbe", {"exec": {"command": ["false"]}}),
    ("Deployment", naming.WORKER, "spec/template/spec/volumes/-", {"name": "x", "emptyDir": {}}),
    ("ConfigMap", naming.CONFIG_MAP, "data/other", "x"),
    ("ConfigMap", naming.CONFIG_MAP, "binaryData", {"x": "eA=="}),
    ("Secret", naming.STORES_SECRET, "data/api_port", "MQ=="),
    ("Secret", naming.STORES_SECRET, "immutable", True),
]


@pytest.mark.parametrize(("kind", "name", "path", "value"), ADDED, ids=[f"{row[0]} {row[2]}" for row in ADDED])
def test_whatever_was_added_is_a_difference_and_is_taken_out(kind, name, path, value):
    """Selectors, rules, pod specs and data are compared whole; the operations give back what is wanted."""
    obj = objects()[kind, name]
    live = served(obj)
    *parents, last = path.split("/")
    place = live
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        place.append(value)
    else:
        place[last] = value
    found = differences(obj, live)
    assert found
    assert not is_applied(obj, live)
    assert changed_by_others(obj, live, found)
    for difference in found:
        patched(live, difference.operation)
    assert differences(obj, live) == []


def patched(document, operation):
    """Do one operation of RFC 6902, as far as ours go."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for part in parts[:-1]:
        document = document[int(part)] if isinstance(document, list) else document[part]
    key = parts[-1]
    if isinstance(document, list) and key == "-":
        document.append(operation["value"])
    elif operation["op"] == "remove":
        del document[int(key) if isinstance(document, list) else key]
    else:
        document[int(key) if isinstance(document, list) else key] = operation["value"]


DEFAULTED = [
    ("Service", naming.API, "spec", {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]}),
    ("Service", naming.API, "spec", {"ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster"}),
    ("Service", naming.API, "spec", {"sessionAffinity": "None"}),
    ("Deployment", naming.API, "spec/template/metadata", {"creationTimestamp": None}),
    ("Deployment", naming.API, "spec/template/metadata/annotations", {"kubectl.kubernetes.io/restartedAt": "now"}),
    ("Deployment", naming.API, "spec/template/spec", {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always"}),
    ("Deployment", naming.API, "spec/template/spec", {"schedulerName": "default-scheduler"}),
    ("Deployment", naming.API, "spec/template/spec", {"serviceAccount": naming.API}),
    ("Deployment", naming.API, "spec/template/spec/containers/0", {"terminationMessagePolicy": "File"}),
    ("Deployment", naming.API, "spec/template/spec/containers/0/readinessProbe", {"successThreshold": 1}),
    ("Deployment", naming.API, "spec/template/spec/containers/0/readinessProbe/httpGet", {"scheme": "HTTP"}),
    ("Deployment", naming.API, "spec/template/spec/volumes/0/configMap", {"defaultMode": 420}),
    ("Deployment", naming.API, "metadata/labels", {"of": "others"}),
    ("Deployment", naming.API, "metadata", {"finalizers": ["of/others"]}),
    ("ServiceAccount", naming.API, "", {"secrets": [{"name": "t"}], "imagePullSecrets": [{"name": "r"}]}),
]


@pytest.mark.parametrize(("kind", "name", "path", "more"), DEFAULTED, ids=[f"{r[0]} {r[2]} {r[3]}" for r in DEFAULTED])
def test_what_the_server_fills_in_and_what_belongs_to_others_is_no_difference(kind, name, path, more):
    """Defaults of the API server, and labels and annotations of others, are left alone."""
    obj = objects()[kind, name]
    live = served(obj)
    place = live
    for part in path.split("/") if path else []:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place |= more
    assert differences(obj, live) == []


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
