"""Values: documented, checked before anything is installed, and refused with a sentence that names the mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "assistant-platform"
VALUE_SETS = {
    "defaults": [],
    "small": ["--values", str(CHART / "values-small.yaml")],
    "demo": [
        "--values",
        str(CHART / "values-small.yaml"),
        "--values",
        str(CHART.parents[1] / "tools" / "demo" / "values.yaml"),
    ],
    "everything on": [
        "--set=providers.openai.url=https://api.openai.com/v1,providers.openai.keyRef=openai",
        "--set=providerKeys.keys.openai=sk-x,telemetry.otlpEndpoint=http://collector.observability.svc:4318",
        "--set=monitoring.serviceMonitor.enabled=true,monitoring.serviceMonitor.labels.release=prometheus",
        "--set=monitoring.rules.enabled=true,monitoring.dashboards.enabled=true,monitoring.rules.labels.release=prometheus",
        "--set=image.pullSecrets={one,two},gateway.priorityClassName=high,operator.nodeSelector.pool=platform",
        "--set=tenantEndpoints.allowHosts={*.llm.example,10.1.2.3},networkPolicies.dns[0].podSelector.matchLabels.k=v",
    ],
    "everything off": [
        "--set=networkPolicies.enabled=false,admission.enabled=false,uninstallGuard.enabled=false",
        "--set=userRoles.aggregate=false,routesNamespace.create=false",
    ],
    "stores of one's own": [
        "--set=embedded.postgres.enabled=false,embedded.redis.enabled=false,embedded.weaviate.enabled=false",
        "--set=external.postgres.existingSecret=pg,external.postgres.tenantAddress=db.example.com:5432",
        "--set=external.redis.existingSecret=rd,external.redis.tenantAddress=redis.example.com:6380",
        "--set=external.weaviate.existingSecret=wv,external.weaviate.tenantUrl=https://wv.example.com",
        "--set=external.weaviate.tenantGrpc=wv.example.com:50051,external.postgres.cidrs={10.1.0.0/16}",
    ],
}


@pytest.mark.parametrize("chart", ["assistant-crds", "assistant-platform"])
def test_charts_pass_helms_linter(helm: Any, chart: str) -> None:
    """`helm lint --strict` has nothing to say."""
    done = helm.run("lint", "--strict", str(CHART.parent / chart))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_every_kind_of_installation_renders(helm: Any, values: list[str]) -> None:
    """Objects are complete, of one name each, and lint as well as the defaults."""
    objects = helm.template("assistant-platform", *values)
    keys = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(keys) == len(set(keys))
    done = helm.run("lint", "--strict", str(CHART), *values)
    assert done.returncode == 0, done.stdout + done.stderr


REFUSED = {
    "gateway.replica=3": "at '/gateway': additional properties 'replica' not allowed",
    "gatewy.replicas=3": "additional properties 'gatewy' not allowed",
    "gateway.replicas=0": "/gateway/replicas",
    "image.pullPolicy=Sometimes": "/image/pullPolicy",
    "providers.OpenAI.url=https://x.example/v1": "OpenAI",
    "providers.x.keyRef=x": "missing property 'url'",
    "providers.x.url=ftp://x.example": "/providers/x/url",
    "providers.x.url=https://user:secret@x.example": "/providers/x/url",
    "providers.x.url=https://x.example,providers.x.models.m.inputPerMillion=-1": "/models/m/inputPerMillion",
    "providers.x.url=https://x.example,providers.x.models.m.maxOutputTokens=0": "/models/m/maxOutputTokens",
    "providers.x.url=https://x.example,providers.x.models.m.price=1": "additional properties 'price' not allowed",
    "providers.x.url=https://x.example,providers.x.concurrency=0": "/providers/x/concurrency",
    "providers.x.url=https://x.example,providers.x.breaker.failureShare=2": "/providers/x/breaker/failureShare",
    "providers.x.url=https://x.example,providers.x.breaker.share=1": "additional properties 'share' not allowed",
    "providers.x.url=https://x.example,providers.x.allowFields={messages}": "/providers/x/allowFields/0",
    "operator.resyncSeconds=3000": "/operator/resyncSeconds",
    "operator.leaseSeconds=1": "/operator/leaseSeconds",
    "tenantDefaults.requestsPerMinute=0": "/tenantDefaults/requestsPerMinute",
    "tenantDefaults.budget.amount=1": "/tenantDefaults/budget/amount",
    "tenantDefaults.budget.amount=1.1234567USD": "/tenantDefaults/budget/amount",
    "tenantDefaults.budget.currency=EUR": "/tenantDefaults/budget/currency",
    "tenantDefaults.budget.period=Week": "/tenantDefaults/budget/period",
    "tenantDefaults.tokensPerDay=-1": "/tenantDefaults/tokensPerDay",
    "tenantDefaults.timeZone=../etc": "/tenantDefaults/timeZone",
    "tenantDefaults.failurePolicy=Open": "/tenantDefaults/failurePolicy",
    "tenantDefaults.resources.limits.memory=lots": "/tenantDefaults/resources/limits/memory",
    "networkPolicies.apiServer.cidrs={somewhere}": "/networkPolicies/apiServer/cidrs/0",
    "tenantEndpoints.allowHosts={x' || 'a' == 'a}": "/tenantEndpoints/allowHosts/0",
    "embedded.postgres.image=": "/embedded/postgres/image",
    "embedded.postgres.enabled=false": "external.postgres.existingSecret",
    "embedded.redis.enabled=false,external.redis.existingSecret=mine": "external.redis.tenantAddress",
    "telemetry.otlpEndpoint=http://collector.observability.svc:4317": "/telemetry/otlpEndpoint",
    "providerKeys.existingSecret=a,providerKeys.keys.openai=b": "not both",
}


@pytest.mark.parametrize(("value", "sentence"), REFUSED.items())
def test_mistakes_are_told(helm: Any, value: str, sentence: str) -> None:
    """A misspelt, impossible or half-set value is refused, and the answer names it."""
    assert sentence in helm.refusal("--set", value)


def test_default_limits_reach_the_operator_as_it_reads_them(helm: Any) -> None:
    """What is set is in the environment of the operator, money exactly as written; what is not set is not."""

    def settings(*values: str) -> dict[str, str]:
        (pod,) = (
            o["spec"]["template"]["spec"]
            for o in helm.template("assistant-platform", *values)
            if (o["kind"], o["metadata"]["name"]) == ("Deployment", "assistant-operator")
        )
        return {e["name"]: e.get("value", "") for e in pod["containers"][0]["env"]}

    plain = settings()
    assert "OPERATOR_DEFAULT_BUDGET" not in plain
    assert "OPERATOR_DEFAULT_TOKENS_PER_DAY" not in plain
    assert (plain["OPERATOR_DEFAULT_TIME_ZONE"], plain["OPERATOR_DEFAULT_FAILURE_POLICY"]) == ("UTC", "Closed")
    limited = settings(
        "--set-string=tenantDefaults.budget.amount=25.10",
        "--set=tenantDefaults.tokensPerDay=12000000,tenantDefaults.timeZone=Europe/Berlin",
    )
    assert json.loads(limited["OPERATOR_DEFAULT_BUDGET"]) == {"amount": "25.10", "currency": "USD", "period": "Month"}
    assert limited["OPERATOR_DEFAULT_TOKENS_PER_DAY"] == "12000000"
    assert limited["OPERATOR_DEFAULT_TIME_ZONE"] == "Europe/Berlin"


def test_every_value_is_in_the_schema_and_every_property_has_a_default() -> None:
    """Schema and values.yaml tell the same story, so that what is documented is what exists."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    missing: list[str] = []

    def compare(node: dict[str, Any], value: Any, path: str) -> None:
        if "properties" not in node or not isinstance(value, dict):
            return
        names = set(node["properties"]) - {"global"}
        missing.extend(f"{path}.{name}" for name in names ^ set(value))
        for name in names & set(value):
            compare(node["properties"][name], value[name], f"{path}.{name}")

    compare(schema, values, "")
    assert missing == []


def test_the_small_profile_only_makes_things_smaller() -> None:
    """values-small.yaml changes replicas, resources and volumes, nothing that decides what the platform does."""
    allowed = {"replicas", "resources", "workerResources", "storage"}
    small = yaml.safe_load((CHART / "values-small.yaml").read_text())
    embedded = small.pop("embedded")
    assert {name for part in [*small.values(), *embedded.values()] for name in part} <= allowed


@pytest.mark.parametrize(
    ("given", "fine"),
    [
        ("providers.a.kind=anthropic,providers.a.keyRef=a", True),
        ("providers.a.kind=bedrock,providers.a.keyRef=a,providers.a.url=https://vpce.example", True),
        ("providers.a.kind=anthropic", False),
        ("providers.a.kind=claude,providers.a.keyRef=a", False),
        ("providers.a.kind=openai,providers.a.keyRef=a", False),
        ("providers.a.keyRef=a", False),
    ],
)
def test_kinds_of_providers_are_a_closed_list(helm: Any, given: str, fine: bool) -> None:
    """A translated provider needs a key, one that speaks OpenAI's wire an address; others do not exist."""
    done = helm.run("lint", str(CHART), "--set", given)
    assert (done.returncode == 0) is fine, done.stdout + done.stderr
