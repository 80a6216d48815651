"""What others add to the operator's objects, hold under its names, or keep it from writing, on a real API server."""

import json

import pytest
from lightkube.types import PatchType
from operator_world import all_objects, condition

from assistant_crds import naming

SIDECAR = {"name": "proxy", "image": "registry.invalid/none"}
POD = "/spec/template/spec"
ADDED = [
    ("Service", naming.API, {"op": "add", "path": "/spec/selector/extra", "value": "x"}),
    ("Service", naming.API, {"op": "add", "path": "/spec/publishNotReadyAddresses", "value": True}),
    ("NetworkPolicy", "assistant-default-deny", {"op": "add", "path": "/spec/podSelector/matchLabels/x", "value": "y"}),
    ("NetworkPolicy", "assistant-default-deny", {"op": "add", "path": "/spec/ingress", "value": [{}]}),
    ("NetworkPolicy", naming.API, {"op": "add", "path": "/spec/ingress/0/from/0/namespaceSelector", "value": {}}),
    ("Deployment", naming.API, {"op": "add", "path": "/spec/paused", "value": True}),
    ("Deployment", naming.API, {"op": "add", "path": f"{POD}/containers/0", "value": SIDECAR}),
    ("Deployment", naming.API, {"op": "add", "path": f"{POD}/initContainers", "value": [SIDECAR]}),
    ("Deployment", naming.API, {"op": "add", "path": f"{POD}/hostNetwork", "value": True}),
    ("Deployment", naming.API, {"op": "add", "path": f"{POD}/volumes/-", "value": {"name": "x", "emptyDir": {}}}),
    (
        "Deployment",
        naming.API,
        {"op": "add", "path": f"{POD}/containers/0/env/-", "value": {"name": "API_PORT", "value": "1"}},
    ),
    ("ConfigMap", naming.CONFIG_MAP, {"op": "add", "path": "/data/other", "value": "x"}),
    ("Secret", naming.STORES_SECRET, {"op": "add", "path": "/data/api_port", "value": "MQ=="}),
]


async def tamper(world, kind, name, *operations):
    await world.cluster._client.patch(
        world.cluster._resources[kind],
        name,
        list(operations),
        namespace=world.namespace,
        patch_type=PatchType.JSON,
        field_manager="somebody",
    )


def content(objects):
    return {
        key: {part: value for part, value in obj.items() if part in {"spec", "data", "binaryData"}}
        for key, obj in objects.items()
    }


async def told(world):
    return [
        event["message"]
        for event in await world.cluster.list("Event", world.namespace)
        if event["reason"] == "Restored"
    ]


async def test_whatever_is_added_to_a_child_is_taken_out_and_named(world, context):
    """Each addition is gone after the next run, an Event names it, and then nothing more is written."""
    await world.assistant()
    await world.settle(context)
    before = content(await all_objects(world.cluster, world.namespace))
    for kind, name, operation in ADDED:
        await tamper(world, kind, name, operation)
        assert content(await all_objects(world.cluster, world.namespace)) != before, operation
        await world.settle(context)
        assert content(await all_objects(world.cluster, world.namespace)) == before, operation
        message = (await told(world))[-1] if len(ADDED) == 1 else " ".join(await told(world))
        assert f"{kind} {name} was changed" in message
    assert await world.is_ready("Assistant", "support")
    assert context.memory.kept == {}


async def test_labels_and_annotations_of_others_stay(world, context):
    """Foreign metadata, on the object and on the pod template's annotations, is neither taken away nor fought."""
    await world.assistant()
    await world.settle(context)
    template = "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt"
    await tamper(
        world,
        "Deployment",
        naming.API,
        {"op": "add", "path": "/metadata/labels/of", "value": "others"},
        {"op": "add", "path": "/metadata/annotations/of", "value": "others"},
        {"op": "add", "path": template, "value": "now"},
    )
    await world.settle(context)
    deployment = (await all_objects(world.cluster, world.namespace))["Deployment", naming.API]
    assert deployment["metadata"]["labels"]["of"] == "others"
    assert deployment["metadata"]["annotations"]["of"] == "others"
    assert "kubectl.kubernetes.io/restartedAt" in deployment["spec"]["template"]["metadata"]["annotations"]
    assert await told(world) == []


async def test_a_label_of_ours_that_was_taken_away_comes_back(world, context):
    """An object that the operator made stays its own without the label."""
    await world.assistant()
    await world.settle(context)
    label = naming.LABEL_MANAGED_BY.replace("/", "~1")
    await tamper(world, "Service", naming.API, {"op": "remove", "path": f"/metadata/labels/{label}"})
    await world.settle(context)
    assert ("Service", naming.API) in await all_objects(world.cluster, world.namespace)


FOREIGN = [
    ("ConfigMap", naming.CONFIG_MAP, {"data": {"mine": "precious"}}),
    ("Secret", naming.API_KEY_SECRET, {"stringData": {"api-key": "precious"}}),
    ("Secret", naming.STORES_SECRET, {"stringData": {"mine": "precious"}}),
    ("Service", naming.API, {"spec": {"selector": {"my": "own"}, "ports": [{"port": 80}]}}),
    ("ServiceAccount", naming.API, {}),
]


@pytest.mark.parametrize(("kind", "name", "body"), FOREIGN, ids=[f"{row[0]} {row[1]}" for row in FOREIGN])
async def test_an_object_of_others_is_never_taken_over(world, context, kind, name, body):
    """What has one of our names without being ours is named in a condition, stays as it is, and outlives the tenant."""
    metadata = {"name": name, "namespace": world.namespace}
    version = "v1"
    foreign = await world.cluster._client.patch(
        world.cluster._resources[kind],
        name,
        {"apiVersion": version, "kind": kind, "metadata": metadata, **body},
        namespace=world.namespace,
        patch_type=PatchType.APPLY,
        field_manager="somebody",
    )
    await world.assistant()
    for _ in range(3):
        await world.run(context)

    refused = condition(await world.get("Assistant", "support"), "WorkloadAvailable")
    assert (refused["status"], refused["reason"]) == ("False", "NameTaken")
    assert f"{kind} {name} " in refused["message"]
    assert await world.get(kind, name) == foreign
    assert ("Deployment", naming.API) not in await all_objects(world.cluster, world.namespace)

    await world.delete("Assistant", "support")
    await world.settle(context)
    assert await world.get("Assistant", "support") is None
    assert await world.get(kind, name) == foreign

    await world.delete(kind, name)
    await world.assistant()
    await world.settle(context)
    assert await world.is_ready("Assistant", "support")


async def test_a_secret_that_the_quota_refuses_is_told_and_the_rest_goes_on(world, context):
    """A write that the API server refuses ends in ApplyFailed with its reason; policy and configuration are made."""
    # No controller counts quotas here: what one would write into the status is written by hand.
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": world.namespace}}
    http = world.cluster._client._client._client
    path = f"/api/v1/namespaces/{world.namespace}/resourcequotas"
    assert (await http.post(path, json={**quota, "spec": {"hard": {"secrets": "0"}}})).status_code == 201
    status = {"status": {"hard": {"secrets": "0"}, "used": {"secrets": "0"}}}
    merge = {"Content-Type": "application/merge-patch+json"}
    assert (await http.patch(f"{path}/none/status", content=json.dumps(status), headers=merge)).status_code == 200
    await world.assistant()
    for _ in range(3):
        await world.run(context)

    refused = condition(await world.get("Assistant", "support"), "WorkloadAvailable")
    assert (refused["status"], refused["reason"]) == ("False", "ApplyFailed")
    assert "exceeded quota" in refused["message"]
    assert ("ConfigMap", naming.CONFIG_MAP) in await all_objects(world.cluster, world.namespace)

    assert (await http.delete(f"{path}/none")).status_code == 200
    await world.settle(context)
    assert await world.is_ready("Assistant", "support")


async def test_an_immutable_secret_is_told(world, context):
    """A Secret of ours that was made immutable with other content cannot be written: the condition says so."""
    await world.assistant()
    await world.settle(context)
    await tamper(
        world,
        "Secret",
        naming.STORES_SECRET,
        {"op": "replace", "path": "/data/weaviate_grpc", "value": "eA=="},
        {"op": "add", "path": "/immutable", "value": True},
    )
    for _ in range(2):
        await world.run(context)
    refused = condition(await world.get("Assistant", "support"), "WorkloadAvailable")
    assert (refused["status"], refused["reason"]) == ("False", "ApplyFailed")
    assert "immutable" in refused["message"]

    await world.delete("Secret", naming.STORES_SECRET)
    await world.settle(context)
    assert await world.is_ready("Assistant", "support")


@pytest.mark.parametrize("value", ["a\nb", "a\r\nX-Other: b", "é", "\x00"])
async def test_an_odd_vector_store_key_in_the_secret_stops_nothing(world, context, value):
    """Whatever a tenant writes into its Secret, the run ends in a status, and heals."""
    import base64

    await world.assistant()
    await world.knowledge_base()
    await world.settle(context)
    encoded = base64.b64encode(value.encode()).decode()
    await tamper(
        world,
        "Secret",
        naming.STORES_SECRET,
        {"op": "replace", "path": "/data/weaviate_api_key", "value": encoded},
    )
    context.memory.checked.clear()
    for _ in range(3):
        await world.run(context)
    assert condition(await world.get("Assistant", "support"), "Ready")
    await world.delete("Secret", naming.STORES_SECRET)
    await world.settle(context)
    assert await world.is_ready("Assistant", "support")


async def test_pods_that_were_refused_are_asked_for_again(world, context):
    """While the cluster refuses a Deployment's pods, the Deployment is touched now and then, never in every run."""
    await world.assistant()
    await world.settle(context)
    status = {
        "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]
    }
    await world.node._status("deployments", "apps/v1", naming.API, status)

    async def nudged():
        await world.run(context)
        deployment = (await all_objects(world.cluster, world.namespace))["Deployment", naming.API]
        return deployment["metadata"]["annotations"].get(naming.ANNOTATION_NUDGED), deployment["spec"]

    first, spec = await nudged()
    assert first
    version = (await world.get("Deployment", naming.API))["metadata"]["resourceVersion"]
    await world.run(context)
    assert (await world.get("Deployment", naming.API))["metadata"]["resourceVersion"] == version
    context.memory.nudged.clear()
    assert (await nudged())[1] == spec
    assert context.memory.nudged
