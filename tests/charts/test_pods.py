"""What the pods are: least privilege, images from wherever the platform team keeps them, secrets only where used."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from assistant_gateway import server
from assistant_gateway.config import Settings

Json = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "Job", "Pod")


def templates(objects: list[Json]) -> Iterator[tuple[str, Json]]:
    """Yield the name of each workload and its pod."""
    for document in objects:
        if document["kind"] in WORKLOADS:
            pod = document if document["kind"] == "Pod" else document["spec"]["template"]
            yield document["metadata"]["name"], pod


def named(objects: list[Json], kind: str, name: str) -> Json:
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


def images(objects: list[Json]) -> dict[str, str]:
    return {f"{name}/{c['name']}": c["image"] for name, pod in templates(objects) for c in pod["spec"]["containers"]}


def test_pods_satisfy_the_standard_restricted(render: Callable[..., list[Json]]) -> None:
    """No root, no capabilities, no writable root file system, no token unless the part talks to Kubernetes."""
    talking = {"assistant-operator", "assistant-gateway", "assistant-uninstall-guard"}
    for name, pod in templates(render()):
        spec = pod["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 10001, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is (name in talking), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"requests", "limits"} <= set(container["resources"]), name
            assert container["resources"]["limits"]["memory"], name


def test_a_real_server_takes_every_pod_in_a_restricted_namespace(cluster: Any, helm: Any) -> None:
    """Pod Security admission, which enforces on pods only, is asked about each of them."""
    assert cluster.kubectl("create", "serviceaccount", "default", "-n", "assistant-platform").returncode == 0
    claimed = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}  # the StatefulSet controller adds it
    objects = helm.template("assistant-platform")
    assert cluster.apply(next(o for o in objects if o["kind"] == "PriorityClass")).returncode == 0
    for name, pod in templates(objects):
        document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{name}-x", "namespace": "assistant-platform", "labels": pod["metadata"]["labels"]},
            "spec": pod["spec"] | {"volumes": [*pod["spec"]["volumes"], claimed]},
        }
        done = cluster.apply(document, "--dry-run=server")
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr


@pytest.mark.parametrize("files", [[], ["values-small.yaml"]], ids=["defaults", "small"])
def test_platform_parts_go_before_tenants_pods(helm: Any, request: pytest.FixtureRequest, files: list[str]) -> None:
    """Each asks for more of the processor than a tenant's API and worker, and has a priority, which theirs have not."""
    folder = request.config.rootpath / "charts" / "assistant-platform"
    objects = helm.template("assistant-platform", *(f"--values={folder / file}" for file in files))
    classes = [o["metadata"]["name"] for o in objects if o["kind"] == "PriorityClass"]
    operator = named(objects, "Deployment", "assistant-operator")["spec"]["template"]["spec"]["containers"][0]
    settings = {item["name"]: item.get("value", "") for item in operator["env"]}
    most = max(
        _millicores(json.loads(settings[name])["requests"]["cpu"])
        for name in ("OPERATOR_DEFAULT_RESOURCES", "OPERATOR_DEFAULT_WORKER_RESOURCES")
    )
    parts = [(o["metadata"]["name"], o["spec"]["template"]["spec"]) for o in objects if o["kind"] in WORKLOADS[:2]]
    assert len(parts) == 5
    for name, spec in parts:
        assert [spec["priorityClassName"]] == classes, name
        assert _millicores(spec["containers"][0]["resources"]["requests"]["cpu"]) > most, name


def _millicores(quantity: str) -> int:
    return int(quantity.removesuffix("m")) if quantity.endswith("m") else int(quantity) * 1000


def test_the_restricted_namespace_of_that_test_refuses_other_pods(cluster: Any) -> None:
    """Without this the test above could pass because nothing is enforced."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "namespace": "assistant-platform"},
        "spec": {"containers": [{"name": "x", "image": "x"}], "automountServiceAccountToken": False},
    }
    assert "violates PodSecurity" in cluster.apply(pod, "--dry-run=server").stderr


def test_images_come_from_the_named_registry(render: Callable[..., list[Json]]) -> None:
    """One registry and tag serve all parts, tenants' pods among them; the stores have full references."""
    objects = render(
        "image.registry=registry.example.com/ai",
        "image.tag=2.0.1",
        *(f"embedded.{store}.image=registry.example.com/{store}:1" for store in ("postgres", "redis", "weaviate")),
    )
    assert images(objects) == {
        "assistant-operator/operator": "registry.example.com/ai/operator:2.0.1",
        "assistant-gateway/gateway": "registry.example.com/ai/gateway:2.0.1",
        "assistant-postgres/postgres": "registry.example.com/postgres:1",
        "assistant-redis/redis": "registry.example.com/redis:1",
        "assistant-weaviate/weaviate": "registry.example.com/weaviate:1",
        "assistant-test/test": "registry.example.com/ai/operator:2.0.1",
        "assistant-uninstall-guard/guard": "registry.example.com/ai/operator:2.0.1",
    }
    assert environment(objects, "assistant-operator")["OPERATOR_API_IMAGE"] == "registry.example.com/ai/api:2.0.1"


def test_one_part_can_have_an_image_of_its_own(render: Callable[..., list[Json]]) -> None:
    """A full reference wins, so that parts may be tagged by their content."""
    objects = render("operator.image=localhost/a/operator:1a", "gateway.image=localhost/a/gateway:2b", "api.image=c:3")
    assert images(objects)["assistant-operator/operator"] == "localhost/a/operator:1a"
    assert images(objects)["assistant-gateway/gateway"] == "localhost/a/gateway:2b"
    assert environment(objects, "assistant-operator")["OPERATOR_API_IMAGE"] == "c:3"


def test_no_image_is_left_to_chance(render: Callable[..., list[Json]]) -> None:
    """Every default names a version."""
    for name, image in images(render()).items():
        tag = image.rpartition("/")[2].partition(":")[2]
        assert tag not in ("", "latest"), name


def environment(objects: list[Json], deployment: str) -> dict[str, str]:
    container = named(objects, "Deployment", deployment)["spec"]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


@pytest.mark.parametrize(
    ("deployment", "settings", "prefix"),
    [
        ("assistant-operator", "assistant_operator.config:Settings", "OPERATOR_"),
        ("assistant-gateway", "assistant_gateway.config:Settings", "GATEWAY_"),
    ],
)
def test_environment_variables_are_settings_of_the_part(
    render: Callable[..., list[Json]], deployment: str, settings: str, prefix: str
) -> None:
    """A variable that no setting reads, or a setting without a default that nobody gives, would be silent."""
    module, _, name = settings.partition(":")
    fields = getattr(__import__(module, fromlist=[name]), name).model_fields
    objects = render("telemetry.otlpEndpoint=http://collector.example:4318")
    given = {v.removeprefix(prefix).lower() for v in environment(objects, deployment) if v.startswith(prefix)}
    spec = named(objects, "Deployment", deployment)["spec"]["template"]["spec"]
    files = {
        item["path"]
        for volume in spec["volumes"]
        if volume["name"] == "stores"
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    from_the_image = {"migrations_dir", "ledger_migrations_dir"}
    assert given - {"secrets_dir"} <= set(fields)
    assert files <= set(fields)
    required = {field for field, info in fields.items() if info.is_required()}
    assert required <= given | files | from_the_image


def test_only_the_gateway_holds_provider_keys(render: Callable[..., list[Json]]) -> None:
    """No other pod mounts them, and nobody takes them from the environment."""
    objects = render("providerKeys.keys.openai=sk-secret")
    holders = [name for name, pod in templates(objects) if "assistant-provider-keys" in str(pod)]
    assert holders == ["assistant-gateway"]
    named_in = [o["kind"] for o in objects if "sk-secret" in str(o)]
    assert named_in == ["Secret"]


def test_each_pod_mounts_only_the_keys_it_uses(render: Callable[..., list[Json]]) -> None:
    """The gateway cannot read the operator's Redis user, the operator not Postgres' superuser."""

    def keys(name: str) -> set[tuple[str, str]]:
        volumes = named(render(), "Deployment", name)["spec"]["template"]["spec"]["volumes"]
        stores = next(v for v in volumes if v["name"] == "stores")["projected"]["sources"]
        return {(s["secret"]["name"], item["key"]) for s in stores for item in s["secret"]["items"]}

    assert keys("assistant-gateway") == {("assistant-redis", "gateway-url"), ("assistant-postgres", "ledger-url")}
    assert keys("assistant-operator") == {
        ("assistant-postgres", "dsn"),
        ("assistant-postgres", "ca.crt"),  # tenants get it to check the server's certificate
        ("assistant-postgres", "ledger-url"),  # it makes that role
        ("assistant-redis", "operator-url"),
        ("assistant-weaviate", "url"),
        ("assistant-weaviate", "grpc-url"),
        ("assistant-weaviate", "api-key"),
    }


def test_a_new_chart_version_restarts_no_store(render: Callable[..., list[Json]]) -> None:
    """Pods of the stores carry nothing that changes with the chart alone."""
    for name, pod in templates(render()):
        assert "helm.sh/chart" not in pod["metadata"]["labels"] or name == "assistant-test"


def test_replicas_are_kept_while_nodes_are_drained(render: Callable[..., list[Json]]) -> None:
    """With more than one replica there is a budget; with one there is none, which would block the drain for ever."""
    budgets = {o["metadata"]["name"] for o in render() if o["kind"] == "PodDisruptionBudget"}
    assert budgets == {"assistant-operator", "assistant-gateway"}
    small = render(files=("charts/assistant-platform/values-small.yaml",))
    assert not [o for o in small if o["kind"] == "PodDisruptionBudget"]


@pytest.mark.parametrize("seconds", [0, 30, 600])
def test_the_gateways_grace_period_holds_all_that_it_does_when_it_ends(
    render: Callable[..., list[Json]], seconds: int
) -> None:
    """Readiness, running answers, farewells, settlement, the ledger, connections: the last of it is not cut off."""
    pod = named(render(f"gateway.streamSeconds={seconds}"), "Deployment", "assistant-gateway")
    drain = Settings.model_fields["drain_seconds"].default
    grace = pod["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= seconds + drain + server.FAREWELL_SECONDS + 5


def test_catalogue_reaches_both_readers(render: Callable[..., list[Json]]) -> None:
    """Gateway and operator mount the same file as a folder, so that they see it change."""
    objects = render("providers.x.url=http://x.example/v1", "tenantEndpoints.allowHosts={a.example}")
    text = named(objects, "ConfigMap", "assistant-catalog")["data"]["catalog.yaml"]
    assert "http://x.example/v1" in text
    assert "a.example" in text
    for name in ("assistant-operator", "assistant-gateway"):
        container = named(objects, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
        mount = next(m for m in container["volumeMounts"] if m["name"] == "catalog")
        assert "subPath" not in mount
        assert environment(objects, name)[f"{name.removeprefix('assistant-').upper()}_CATALOG_FILE"] == (
            f"{mount['mountPath']}/catalog.yaml"
        )


def test_redis_knows_the_memory_of_its_container(render: Callable[..., list[Json]]) -> None:
    """The embedded Redis is told its container's limit, so that it refuses to grow before it would be killed."""
    for values in ((), ("embedded.redis.resources.limits.memory=1Gi",)):
        redis = named(render(*values), "StatefulSet", "assistant-redis")["spec"]["template"]["spec"]["containers"][0]
        told = next(entry for entry in redis["env"] if entry["name"] == "REDIS_MEMORY_LIMIT")
        assert told["valueFrom"]["resourceFieldRef"] == {
            "containerName": "redis",
            "resource": "limits.memory",
            "divisor": "1",
        }


def test_pull_secrets_reach_tenants_pods(render: Any) -> None:
    """The operator is told the names for tenants' pods: their own where there are some, the platform's otherwise."""

    def told(*values: str) -> str | None:
        (operator,) = (
            found
            for found in render(*values)
            if (found["kind"], found["metadata"]["name"]) == ("Deployment", "assistant-operator")
        )
        environment = operator["spec"]["template"]["spec"]["containers"][0]["env"]
        return next((item["value"] for item in environment if item["name"] == "OPERATOR_API_PULL_SECRETS"), None)

    assert told() is None
    assert told("image.pullSecrets={registry}") == '["registry"]'
    assert told("image.pullSecrets={registry}", "api.pullSecrets={theirs}") == '["theirs"]'
