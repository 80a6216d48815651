"""Whatever the API server may admit, a run gets from it to documents and statuses: one resource stops no namespace."""

import functools
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_objects import (
    CREDENTIALS,
    DEFAULTS,
    NOW,
    PROVIDERS,
    assistant,
    knowledge_base,
    platform,
    snapshot,
    tenant,
)

from assistant_crds.conditions import Reason
from assistant_operator import status
from assistant_operator.desired import build
from assistant_operator.tenant.observation import GatewayView, Observation, StoreView
from assistant_operator.tenant.resolve import resolve
from assistant_operator.tenant.snapshot import references
from assistant_operator.tenant.state import Tenant

CRDS = Path(__file__).parents[4] / "crds"
ODD = [
    "",
    "0",
    "1m",
    "1e4400",
    "1e5000000",
    "1e-5000000",
    "9" * 20,
    "-1",
    "NaN",
    "inf",
    "\x00",
    "a\nb",
    "http://[",
    "٣",
]
ODD += ["http://[::1]:99999/v1", "../x", "1Ei", "0.0000000001", "1_0", "\U0010ffff" * 20]


@functools.cache
def specs(kind):
    """Return a strategy of everything that the kind's schema admits, and more: its rules are not looked at."""
    document = yaml.safe_load((CRDS / f"{kind}.yaml").read_text())
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return values(schema)


def values(schema):
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    plain = {
        "boolean": st.booleans,
        "integer": lambda: st.integers(schema["minimum"], schema["maximum"]),
        "array": lambda: st.lists(values(schema["items"]), max_size=min(3, schema["maxItems"])),
        "string": lambda: texts(schema),
    }
    if schema["type"] in plain:
        return plain[schema["type"]]()
    if "properties" not in schema:
        return st.dictionaries(st.text(max_size=5), values(schema["additionalProperties"]), max_size=2)
    needed = set(schema.get("required", []))
    fields = {name: values(inner) for name, inner in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: value for name, value in fields.items() if name in needed},
        optional={name: value for name, value in fields.items() if name not in needed},
    )


def texts(schema):
    longest = schema["maxLength"]
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).map(lambda text: text.rstrip("\n")[:longest])
    odd = [text for text in ODD if schema.get("minLength", 0) <= len(text) <= longest]
    usual = ["https://llm.example.com/v1", "1Gi", "0.5", "25.00"]
    return st.sampled_from(odd + usual) | st.text(max_size=min(longest, 12))


def seen(resolved, view):
    """Return what a run writes of what it resolved."""
    desired = build(resolved, platform(), CREDENTIALS)
    observation = Observation("", "", GatewayView(None, "x"), [], StoreView(), {})
    known = Tenant(view, resolved, observation)
    statuses = [status.assistant(item, known, NOW) for item in resolved.assistants]
    statuses += [status.knowledge_base(item, known, NOW) for item in resolved.knowledge_bases]
    if view.tenant is not None:
        statuses.append(status.tenant(view.tenant, known, NOW))
    return desired, statuses


def with_spec(raw, spec):
    return {**raw, "spec": spec}


@settings(max_examples=300, deadline=None)
@given(specs("assistants"), specs("knowledgebases"), specs("tenants"))
def test_no_resource_stops_its_neighbours(of_assistant, of_base, of_tenant):
    """Beside any Assistant and KnowledgeBase, under any Tenant, a run goes through, and has a status for each."""
    resources = [
        assistant("fine"),
        with_spec(assistant("odd"), of_assistant),
        knowledge_base("fine"),
        with_spec(knowledge_base("odd"), of_base),
    ]
    view = snapshot(*resources, tenant=with_spec(tenant(), of_tenant))
    references(resources)
    desired, statuses = seen(resolve(view, PROVIDERS, DEFAULTS), view)
    assert len(statuses) == 5
    assert all(base.max_bytes >= 1 for base in desired.config.knowledge_bases)
    without = snapshot(*resources)
    assert "fine" in seen(resolve(without, PROVIDERS, DEFAULTS), without)[0].policy.assistants


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
@settings(max_examples=100, deadline=None)
def test_not_even_a_specification_of_another_shape_does(anything):
    """What was stored under other schemas, or none, is refused by itself, and forbids what it cannot say."""
    resources = [assistant("fine"), with_spec(assistant("odd"), {"model": anything})]
    resources.append(with_spec(knowledge_base("odd"), {"embedding": anything, "limits": anything}))
    references(resources)
    view = snapshot(
        *resources, tenant=with_spec(tenant(), {"models": anything, "limits": anything, "serving": anything})
    )
    assert seen(resolve(view, PROVIDERS, DEFAULTS), view)


@pytest.mark.parametrize("text", ["1e4400", "1e5000000", "1m", "0", "-1", "1.5", "0.0001k", "2Pi", "1e99"])
def test_odd_sizes_are_refused_with_a_reason(text):
    """A size that is no whole number of bytes within bounds is an invalid specification of that one resource."""
    view = snapshot(knowledge_base("odd", limits={"bytes": text}), knowledge_base("fine"))
    odd, fine = (base for base in sorted(resolve(view, PROVIDERS, DEFAULTS).knowledge_bases, key=lambda b: b.served))
    assert odd.accepted.reason is Reason.INVALID_SPEC
    assert text in odd.accepted.message
    assert fine.served


@pytest.mark.parametrize("field", ["timeZone", "failurePolicy", "serving", "limits"])
def test_a_tenant_with_a_field_that_cannot_be_read_still_forbids(field):
    """What the platform team forbids stays forbidden, whatever else of the Tenant cannot be understood."""
    spec = {"models": {"allow": ["demo/small"], "allowOwnEndpoints": False}, field: ["another", "shape"]}
    settled = resolve(snapshot(tenant=with_spec(tenant(), spec)), PROVIDERS, DEFAULTS).settings
    assert (settled.models_allow, settled.allow_own_endpoints) == (["demo/small"], False)
    assert settled.accepted.reason is Reason.INVALID_SPEC


@pytest.mark.parametrize("models", ["text", ["a"], {"allow": "*"}, {"allowOwnEndpoints": "yes"}, {"allow": [1]}])
def test_models_that_cannot_be_read_allow_none(models):
    """A list of models that cannot be understood allows nothing."""
    view = snapshot(tenant=with_spec(tenant(), {"models": models}))
    settled = resolve(view, PROVIDERS, DEFAULTS).settings
    assert (settled.models_allow, settled.allow_own_endpoints) == ([], False)
