"""NetworkPolicies: who reaches whom, worked out from what is rendered. That they are enforced is for e2e to show."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

Json = dict[str, Any]
PLATFORM = "assistant-platform"


@dataclass(frozen=True)
class Peer:
    """A pod, or an address outside of the cluster."""

    name: str
    namespace: str = PLATFORM
    managed_by: str = "Helm"
    address: str = ""
    monitoring: bool = False

    def labels(self) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/instance": "platform",
            "app.kubernetes.io/managed-by": self.managed_by,
        }

    def namespace_labels(self) -> dict[str, str]:
        labels = {"kubernetes.io/metadata.name": self.namespace}
        return labels | ({"assistantplatform.io/monitoring": "true"} if self.monitoring else {})


def selects(selector: Json, labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(item: Json, other: Peer, home: str) -> bool:
    if "ipBlock" in item:
        if not other.address:
            return False
        address = ipaddress.ip_address(other.address)
        block = item["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(e) for e in block.get("except", []))
    if other.address:
        return False
    there = (
        selects(item["namespaceSelector"], other.namespace_labels())
        if "namespaceSelector" in item
        else other.namespace == home
    )
    return there and selects(item.get("podSelector", {}), other.labels())


def allows(policies: list[Json], direction: str, pod: Peer, other: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies that select `pod` let it be reached by, or reach, `other`."""
    key = "from" if direction == "Ingress" else "to"
    mine = [
        p["spec"]
        for p in policies
        if p["metadata"].get("namespace", PLATFORM) == pod.namespace
        and selects(p["spec"]["podSelector"], pod.labels())
        and direction in p["spec"]["policyTypes"]
    ]
    if not mine:
        return True
    for rule in (rule for spec in mine for rule in spec.get(direction.lower(), [])):
        ports = [p for p in rule["ports"] if p["port"] == port and p.get("protocol", "TCP") == protocol]
        if ports and (key not in rule or any(is_peer(item, other, pod.namespace) for item in rule[key])):
            return True
    return False


OPERATOR, GATEWAY = Peer("assistant-operator"), Peer("assistant-gateway")
POSTGRES, REDIS, WEAVIATE = Peer("assistant-postgres"), Peer("assistant-redis"), Peer("assistant-weaviate")
TENANT = Peer("assistant-api", "acme", "assistant-operator")
STRANGER = Peer("curl", "acme")
INTRUDER = Peer("curl")  # a pod that somebody put into the platform's namespace
PROMETHEUS = Peer("prometheus", "observability", monitoring=True)
API_SERVER, PROVIDER = Peer("-", address="10.96.0.1"), Peer("-", address="104.18.7.192")
METADATA = Peer("-", address="169.254.169.254")
MODELS = Peer("vllm", "models")

INGRESS = [
    (GATEWAY, 8081, {TENANT, OPERATOR}),
    (GATEWAY, 9090, {PROMETHEUS}),
    (OPERATOR, 9090, {PROMETHEUS}),
    (OPERATOR, 8080, set()),
    (POSTGRES, 5432, {TENANT, OPERATOR, GATEWAY}),
    (REDIS, 6379, {TENANT, OPERATOR, GATEWAY}),
    (WEAVIATE, 8080, {TENANT, OPERATOR}),
    (WEAVIATE, 50051, {TENANT, OPERATOR}),
    (WEAVIATE, 7100, set()),
    (INTRUDER, 8080, set()),
]
CALLERS = {TENANT, STRANGER, INTRUDER, OPERATOR, GATEWAY, POSTGRES, REDIS, WEAVIATE, PROMETHEUS}


@pytest.fixture(scope="module")
def policies(render: Callable[..., list[Json]]) -> list[Json]:
    """The policies of an installation with a model server in the cluster."""
    objects = render(
        "networkPolicies.modelNamespaces[0].namespace=models", "networkPolicies.modelNamespaces[0].ports={8000}"
    )
    return [o for o in objects if o["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize(("pod", "port", "callers"), INGRESS, ids=[f"{p.name}:{port}" for p, port, _ in INGRESS])
def test_who_reaches_a_part(policies: list[Json], pod: Peer, port: int, callers: set[Peer]) -> None:
    """Each port has its callers, and nobody else: no other pod of the tenant, no pod beside ours."""
    assert {c for c in CALLERS if allows(policies, "Ingress", pod, c, port)} == callers


EGRESS = [
    (OPERATOR, API_SERVER, 6443, True),
    (OPERATOR, POSTGRES, 5432, True),
    (OPERATOR, REDIS, 6379, True),
    (OPERATOR, WEAVIATE, 50051, True),
    (OPERATOR, GATEWAY, 8081, True),
    (OPERATOR, TENANT, 8080, True),
    (OPERATOR, STRANGER, 8080, False),
    (OPERATOR, PROVIDER, 80, False),
    (OPERATOR, METADATA, 443, False),
    (GATEWAY, API_SERVER, 443, True),
    (GATEWAY, REDIS, 6379, True),
    (GATEWAY, POSTGRES, 5432, True),
    (GATEWAY, WEAVIATE, 8080, False),
    (GATEWAY, PROVIDER, 443, True),
    (GATEWAY, PROVIDER, 22, False),
    (GATEWAY, METADATA, 80, False),
    (GATEWAY, MODELS, 8000, True),
    (GATEWAY, MODELS, 22, False),
    (GATEWAY, STRANGER, 8000, False),
    (POSTGRES, PROVIDER, 443, False),
    (REDIS, POSTGRES, 5432, False),
    (WEAVIATE, PROVIDER, 443, False),
    (INTRUDER, PROVIDER, 443, False),
]


@pytest.mark.parametrize(
    ("pod", "other", "port", "expected"),
    EGRESS,
    ids=[f"{p.name} to {o.name}{o.address}:{n}" for p, o, n, _ in EGRESS],
)
def test_whom_a_part_reaches(policies: list[Json], pod: Peer, other: Peer, port: int, expected: bool) -> None:
    """Each part has the ways out that its work needs; stores have none."""
    assert allows(policies, "Egress", pod, other, port) is expected


def test_names_resolve_where_they_are_needed(policies: list[Json]) -> None:
    """Operator and gateway reach name servers, wherever those are; stores have no need of them."""
    name_server = Peer("-", address="169.254.20.10")
    for pod, expected in ((OPERATOR, True), (GATEWAY, True), (POSTGRES, False), (REDIS, False), (WEAVIATE, False)):
        assert allows(policies, "Egress", pod, name_server, 53, "UDP") is expected, pod.name


def test_stores_of_ones_own_are_reached_at_their_addresses(render: Callable[..., list[Json]]) -> None:
    """Operator, gateway and, through the operator's setting, tenants' pods get ways to the named networks and ports."""
    objects = render(
        "embedded.redis.enabled=false",
        "external.redis.existingSecret=mine",
        "external.redis.tenantAddress=redis.example.com:6380",
        "external.redis.cidrs={10.9.0.0/24}",
    )
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    mine, other = Peer("-", address="10.9.0.7"), Peer("-", address="10.8.0.7")
    for pod in (OPERATOR, GATEWAY):
        assert allows(policies, "Egress", pod, mine, 6380)
        assert not allows(policies, "Egress", pod, mine, 6379)
        assert not allows(policies, "Egress", pod, other, 6380)
    operator = next(o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == "assistant-operator")
    variables = operator["spec"]["template"]["spec"]["containers"][0]["env"]
    egress = next(v["value"] for v in variables if v["name"] == "OPERATOR_EGRESS")
    assert egress == '[{"cidr":"10.9.0.0/24","ports":[6380]}]'


@pytest.mark.parametrize(
    ("url", "ports", "namespaces"),
    [
        ("http://collector.observability.svc:4318", [4318], ["observability"]),
        ("https://otlp.example.com", [443], []),
    ],
)
def test_every_part_reaches_the_collector_by_one_rule(
    render: Callable[..., list[Json]], url: str, ports: list[int], namespaces: list[str]
) -> None:
    """The URL's port, in the namespace of its Service if it is one; tenants' pods have the same rule."""
    plain, traced = render(), render(f"telemetry.otlpEndpoint={url}")

    def ways(objects: list[Json], part: str) -> list[Json]:
        return next(
            o["spec"]["egress"] for o in objects if (o["kind"], o["metadata"]["name"]) == ("NetworkPolicy", part)
        )

    for part in ("assistant-operator", "assistant-gateway"):
        (added,) = [way for way in ways(traced, part) if way not in ways(plain, part)]
        assert [port["port"] for port in added["ports"]] == ports
        found = [
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in added.get("to", [])
        ]
        assert found == namespaces
