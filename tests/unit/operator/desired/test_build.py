"""Every object of a tenant, and nothing more than it may have."""

import json
from dataclasses import replace

import msgspec
import pytest
from operator_objects import CREDENTIALS, assistant, knowledge_base, own_endpoint, platform, resolved, secret, tenant

from assistant_crds import naming
from assistant_crds.contracts import TenantConfig, TenantIdentity, digest
from assistant_operator.desired import build, policy
from assistant_operator.desired.platform import Credentials, Egress


def made(*resources, platform_changes=None, credentials=CREDENTIALS, **changes):
    return build(resolved(*resources, **changes), platform(**(platform_changes or {})), credentials)


def find(desired, kind, name=naming.API):
    return next(obj for obj in desired.objects if (obj["kind"], obj["metadata"]["name"]) == (kind, name))


def pod_of(deployment):
    return deployment["spec"]["template"]["spec"]


def test_a_tenant_without_knowledge_has_no_worker():
    """The worker, and its way out, exist only while there is something to ingest into."""
    names = made(assistant()).keys()
    assert ("Deployment", naming.WORKER) not in names
    assert ("NetworkPolicy", naming.WORKER) not in names
    with_knowledge = made(assistant(), knowledge_base()).keys()
    assert ("Deployment", naming.WORKER) in with_knowledge
    assert ("NetworkPolicy", naming.WORKER) in with_knowledge


def test_building_is_deterministic():
    """Equal inputs give equal objects, in whatever order the resources came."""
    one = made(assistant("a"), assistant("b"), knowledge_base())
    two = made(knowledge_base(), assistant("b"), assistant("a"))
    assert one == two


def test_every_object_is_ours_and_says_so():
    """Labels name part, manager and tenant; each object carries the digest of its content."""
    desired = made(assistant(), knowledge_base(), tenant=tenant(serving={"replicas": {"min": 2}}))
    for obj in [*desired.objects, desired.policy_secret]:
        labels = obj["metadata"]["labels"]
        assert labels[naming.LABEL_MANAGED_BY] == naming.MANAGED_BY
        assert labels[naming.LABEL_TENANT] == "acme"
        assert naming.ANNOTATION_APPLIED in obj["metadata"]["annotations"]
    assert {obj["metadata"]["namespace"] for obj in desired.objects} == {"acme"}
    assert desired.policy_secret["metadata"]["namespace"] == "assistant-platform-routes"


def test_configuration_in_the_config_map_is_sealed_and_readable():
    """Pods read back exactly what was meant, with its generation; the API key is in it as a hash only."""
    desired = made(assistant(instructions="Be kind."))
    text = find(desired, "ConfigMap", naming.CONFIG_MAP)["data"][naming.CONFIG_KEY]
    config = msgspec.json.decode(text, type=TenantConfig)
    assert config == desired.config
    assert config.generation == digest(msgspec.structs.replace(config, generation=""))
    assert CREDENTIALS.api_key not in text
    assert (config.tenant.namespace, config.tenant.key) == ("acme", naming.tenant_key("uid-acme"))


def test_an_assistant_that_cannot_be_asked_is_named_with_its_reason():
    """Pods tell callers why, not that it does not exist; one that waits for its knowledge base is named too."""
    config = made(
        assistant("good"),
        assistant("lost", knowledgeBases=[{"name": "absent"}]),
        assistant("waits", knowledgeBases=[{"name": "broken"}]),
        knowledge_base("broken", chunking={"maxTokens": "many"}),
    ).config
    assert [served.name for served in config.assistants] == ["good"]
    reasons = {absent.name: absent.reason for absent in config.unavailable}
    assert reasons == {"lost": "KnowledgeBaseNotFound", "waits": "KnowledgeBaseNotReady"}
    assert "KnowledgeBase absent" in config.unavailable[0].message
    assert made(assistant("good"), platform_changes={"gateway_seconds": 1800.0}).config.gateway_seconds == 1800


def test_an_endpoints_key_is_in_the_policy_secret_only():
    """Of all objects only the one in the routes namespace holds the tenant's own key for its endpoint."""
    desired = made(assistant(model=own_endpoint()), secrets={"llm": secret(token="sk-secret")})
    assert desired.policy.assistants["support"].route.endpoint.api_key == "sk-secret"
    assert "sk-secret" not in json.dumps(desired.objects)


@pytest.mark.parametrize("name", [naming.API, naming.WORKER])
def test_pods_fulfil_the_restricted_standard(name):
    """No root, no privilege, no token but the projected one, nothing writable but an empty folder."""
    pod = pod_of(find(made(assistant(), knowledge_base()), "Deployment", name))
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == naming.API
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {kind for volume in pod["volumes"] for kind in volume} - {"name"} <= {
        "configMap",
        "secret",
        "projected",
        "emptyDir",
    }
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]
    (token,) = next(volume for volume in pod["volumes"] if "projected" in volume)["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == naming.GATEWAY_AUDIENCE


@pytest.mark.parametrize("name", [naming.API, naming.WORKER])
def test_a_pod_that_is_slow_is_not_ended(name):
    """On a node that is short of the processor a start may take five minutes, and an answer a minute."""
    (container,) = pod_of(find(made(assistant(), knowledge_base()), "Deployment", name))["containers"]
    start, alive = container["startupProbe"], container["livenessProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 300
    assert alive["periodSeconds"] * alive["failureThreshold"] >= 60
    assert start["httpGet"] == alive["httpGet"]


def test_no_secret_is_in_a_pods_specification():
    """Credentials are mounted, never written into the environment."""
    desired = made(assistant(), knowledge_base())
    for name in (naming.API, naming.WORKER):
        text = json.dumps(find(desired, "Deployment", name))
        assert all(value not in text for value in CREDENTIALS.stores.values() if len(value) > 3)


def test_configuration_does_not_roll_pods_and_credentials_do():
    """The pod template depends on credentials, image and resources, not on what the assistants say."""
    template = find(made(assistant(instructions="a")), "Deployment")["spec"]["template"]
    assert find(made(assistant(instructions="b")), "Deployment")["spec"]["template"] == template
    other = Credentials(stores={**CREDENTIALS.stores, "redis_url": "redis://a:c@c/0"}, api_key=CREDENTIALS.api_key)
    assert find(made(assistant(), credentials=other), "Deployment")["spec"]["template"] != template
    new_key = Credentials(stores=CREDENTIALS.stores, api_key="ak_" + "y" * 43)
    assert find(made(assistant(), credentials=new_key), "Deployment")["spec"]["template"] == template


def test_roll_outs_never_take_a_serving_pod_away_first():
    """A new pod is ready before an old one goes; one that goes has time for its streams."""
    spec = find(made(assistant()), "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = spec["template"]["spec"]
    wait = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= wait + 27


def test_a_budget_exists_for_more_than_one_pod():
    """A single pod has none: no node could be drained."""
    names = made(assistant()).keys()
    assert ("PodDisruptionBudget", naming.API) not in names
    desired = made(assistant(), tenant=tenant(serving={"replicas": {"min": 3}}))
    assert find(desired, "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    assert find(desired, "Deployment")["spec"]["replicas"] == 3


def test_pods_reach_only_what_they_need():
    """Ways out: names, gateway and stores, by label in the platform's namespace; no provider, no API server."""
    (names, *others) = find(made(assistant()), "NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    reached = {
        peer["podSelector"]["matchLabels"][naming.LABEL_NAME]: {port["port"] for port in rule["ports"]}
        for rule in others
        for peer in rule["to"]
    }
    assert reached == {
        "assistant-gateway": {8081},
        "assistant-postgres": {5432},
        "assistant-redis": {6379},
        "assistant-weaviate": {8080, 50051},
    }
    for rule in others:
        for peer in rule["to"]:
            assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "assistant-platform"}


def test_ways_in_are_the_namespace_the_platform_and_who_opted_in():
    """Nobody else's pods reach the API; metrics only the platform and monitoring."""
    serving, metrics = find(made(assistant()), "NetworkPolicy")["spec"]["ingress"]
    assert {"podSelector": {}} in serving["from"]
    labels = [peer.get("namespaceSelector", {}).get("matchLabels") for peer in serving["from"]]
    assert {"assistantplatform.io/ingress": "true"} in labels
    assert [port["port"] for port in metrics["ports"]] == [9090]
    assert {"podSelector": {}} not in metrics["from"]
    deny = find(made(assistant()), "NetworkPolicy", "assistant-default-deny")["spec"]
    assert "ingress" not in deny
    assert "egress" not in deny
    assert deny["podSelector"]["matchLabels"] == {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}


def test_stores_outside_and_telemetry_open_a_way_each():
    """Networks of managed stores come from the settings, the collector from its address."""
    changes = {
        "egress": [Egress("10.0.0.0/8", [5433])],
        "otlp_endpoint": "http://collector.monitoring.svc.cluster.local:4318",
        "sample_ratio": 0.25,
    }
    desired = made(assistant(), platform_changes=changes)
    rules = find(desired, "NetworkPolicy")["spec"]["egress"]
    assert {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 5433, "protocol": "TCP"}]} in rules
    namespaces = [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in rules
        for peer in rule.get("to", [])
        if "namespaceSelector" in peer
    ]
    assert "monitoring" in namespaces
    (container,) = pod_of(find(desired, "Deployment"))["containers"]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment["OTEL_TRACES_SAMPLER_ARG"] == "0.25"
    (telemetry,) = [rule for rule in rules if "monitoring" in str(rule.get("to"))]
    assert telemetry["ports"] == [{"port": 4318, "protocol": "TCP"}]
    environment = pod_of(find(desired, "Deployment"))["containers"][0]["env"]
    assert {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": changes["otlp_endpoint"]} in environment
    outside = made(assistant(), platform_changes={"otlp_endpoint": "https://otlp.example.com"})
    assert {"ports": [{"port": 443, "protocol": "TCP"}]} in find(outside, "NetworkPolicy")["spec"]["egress"]


def test_a_closed_policy_lets_nothing_through():
    """What a tenant gets while it is taken away."""
    closed = policy.closed(TenantIdentity(namespace="acme", uid="u", key="t_1"))
    assert (closed.assistants, closed.knowledge_bases, closed.models_allow) == ({}, {}, [])
    assert closed.generation == digest(msgspec.structs.replace(closed, generation=""))


def test_the_policy_names_the_account_and_pods_roll_with_it():
    """The gateway gets the UID of the tenant's ServiceAccount; with another one pods get new tokens by a roll-out."""
    first = build(resolved(assistant()), platform(), replace(CREDENTIALS, account="u-1"))
    second = build(resolved(assistant()), platform(), replace(CREDENTIALS, account="u-2"))
    assert (first.policy.service_account_uid, second.policy.service_account_uid) == ("u-1", "u-2")
    assert build(resolved(assistant()), platform(), CREDENTIALS).policy.service_account_uid == ""
    templates = [
        next(obj["spec"]["template"] for obj in desired.objects if obj["kind"] == "Deployment")
        for desired in (first, second)
    ]
    assert templates[0] != templates[1]


def test_a_closed_policy_lets_nobody_in():
    """A tenant that is being removed has no account."""
    assert policy.closed(resolved().identity).service_account_uid == ""


def test_a_key_that_could_not_be_stored_opens_nothing():
    """An API key that no Secret holds is nobody's: it is not served."""
    lost = replace(CREDENTIALS, refused=frozenset({naming.API_KEY_SECRET}))
    assert build(resolved(assistant()), platform(), lost).config.api_keys == []


def test_pods_name_the_image_pull_secrets():
    """The platform's setting reaches every pod of a tenant; without one nothing is named."""
    desired = made(assistant(), knowledge_base(), platform_changes={"pull_secrets": ["registry"]})
    for name in (naming.API, naming.WORKER):
        assert pod_of(find(desired, "Deployment", name))["imagePullSecrets"] == [{"name": "registry"}]
    assert "imagePullSecrets" not in pod_of(find(made(assistant()), "Deployment"))


def test_only_the_api_gets_what_signs_people_in():
    """The worker reads strangers' documents: neither the keys of tokens and audit log nor the first owner are there."""
    stores = {**CREDENTIALS.stores, naming.SIGNING_KEY: "s" * 43, naming.AUDIT_KEY: "a" * 43}
    made_pods = made(assistant(), knowledge_base(), credentials=replace(CREDENTIALS, stores=stores))
    worker, api = (pod_of(find(made_pods, "Deployment", name)) for name in (naming.WORKER, naming.API))
    (mounted,) = [volume["secret"] for volume in worker["volumes"] if "secret" in volume]
    assert {item["key"] for item in mounted["items"]} == set(CREDENTIALS.stores)
    secrets = {volume["name"]: volume["secret"] for volume in api["volumes"] if "secret" in volume}
    assert "items" not in secrets["stores"]
    assert secrets["admin"] == {"secretName": naming.ADMIN_SECRET, "defaultMode": 0o440, "optional": True}
    assert "admin" in {mount["name"] for mount in api["containers"][0]["volumeMounts"]}
