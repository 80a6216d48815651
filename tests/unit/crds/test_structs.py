"""The msgspec structs and the hand-written CRDs describe the same resources."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from assistant_crds import assistant, conditions, knowledge_base, naming, tenant

CRDS = Path(__file__).parents[3] / "crds"
KINDS: dict[str, tuple[str, type, type]] = {
    "Assistant": ("assistants.yaml", assistant.AssistantSpec, assistant.AssistantStatus),
    "KnowledgeBase": ("knowledgebases.yaml", knowledge_base.KnowledgeBaseSpec, knowledge_base.KnowledgeBaseStatus),
    "Tenant": ("tenants.yaml", tenant.TenantSpec, tenant.TenantStatus),
}
SCALARS: dict[type, str] = {inspect.StrType: "string", inspect.IntType: "integer", inspect.BoolType: "boolean"}


@functools.cache
def crd(kind: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CRDS / KINDS[kind][0]).read_text())
    return document


def schema(kind: str) -> dict[str, Any]:
    properties: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return properties


def compare(described: dict[str, Any], kind: inspect.Type, path: str) -> None:
    """Fail at `path` where the schema and the struct's type part."""
    if isinstance(kind, inspect.UnionType):
        kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    if isinstance(kind, inspect.StructType):
        fields = {f.encode_name: f for f in kind.fields}
        assert described["type"] == "object", path
        assert described["properties"].keys() == fields.keys(), path
        assert set(described.get("required", [])) == {n for n, f in fields.items() if f.required}, path
        for name, field in fields.items():
            compare_default(described["properties"][name], field, f"{path}.{name}")
            compare(described["properties"][name], field.type, f"{path}.{name}")
    elif isinstance(kind, inspect.ListType):
        assert described["type"] == "array", path
        compare(described["items"], kind.item_type, f"{path}[]")
    elif isinstance(kind, inspect.DictType):
        compare(described["additionalProperties"], kind.value_type, f"{path}{{}}")
    else:
        assert described["type"] == SCALARS[type(kind)], path


def compare_default(described: dict[str, Any], field: inspect.Field, path: str) -> None:
    if "default" in described:
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        assert described["default"] == default, path


@pytest.mark.parametrize("kind", KINDS)
def test_spec_and_status_have_the_fields_types_and_defaults_of_the_crd(kind: str) -> None:
    """Every field exists on both sides with one type, and a schema default is the struct's default."""
    _, spec, status = KINDS[kind]
    described = schema(kind)
    compare(described["spec"], inspect.type_info(spec), f"{kind}.spec")
    compare(described["status"], inspect.type_info(status), f"{kind}.status")


@pytest.mark.parametrize("example", sorted((CRDS / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_examples_decode_without_an_unknown_field(example: Path) -> None:
    """Each example is read completely: written back it says what it said."""
    for document in yaml.safe_load_all(example.read_text()):
        spec = msgspec.convert(document["spec"], KINDS[document["kind"]][1])
        assert msgspec.to_builtins(spec) == strip_defaults(document["spec"], KINDS[document["kind"]][1])


def strip_defaults(spec: dict[str, Any], kind: type) -> dict[str, Any]:
    stripped: dict[str, Any] = msgspec.to_builtins(msgspec.convert(spec, kind, strict=True))
    missing = set(spec) - set(stripped)
    assert all(msgspec.convert({**stripped, m: spec[m]}, kind) == msgspec.convert(spec, kind) for m in missing)
    return stripped


@pytest.mark.parametrize("kind", KINDS)
def test_fullest_examples_use_every_field(kind: str) -> None:
    """Together the examples of a kind show every field of its spec."""
    used: set[str] = set()
    for example in (CRDS / "examples").glob("*.yaml"):
        for document in yaml.safe_load_all(example.read_text()):
            if document["kind"] == kind:
                used |= paths(document["spec"])
    assert described_paths(schema(kind)["spec"]) <= used


def paths(value: Any, prefix: str = "") -> set[str]:
    if isinstance(value, dict):
        return {p for k, v in value.items() for p in {f"{prefix}.{k}"} | paths(v, f"{prefix}.{k}")}
    if isinstance(value, list):
        return {p for item in value for p in paths(item, prefix)}
    return set()


def described_paths(described: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in described.get("properties", {}).items():
        found |= {f"{prefix}.{name}"} | described_paths(value.get("items", value), f"{prefix}.{name}")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_crds_are_small_and_speak_of_our_group(kind: str) -> None:
    """A CRD is under 200 KB, in our group and category, with a Ready column."""
    document = crd(kind)
    assert (CRDS / KINDS[kind][0]).stat().st_size < 200_000
    assert document["spec"]["group"] == naming.GROUP
    assert document["spec"]["names"]["categories"] == ["assistantplatform"]
    assert document["spec"]["versions"][0]["name"] == naming.VERSION
    assert document["spec"]["versions"][0]["additionalPrinterColumns"][0]["name"] == "Ready"


def test_each_kind_has_a_list_of_conditions_that_ready_sums_up() -> None:
    """No list repeats a condition, and none holds Ready itself."""
    for listed in (
        conditions.ASSISTANT_CONDITIONS,
        conditions.KNOWLEDGE_BASE_CONDITIONS,
        conditions.TENANT_CONDITIONS,
    ):
        assert len(set(listed)) == len(listed)
        assert conditions.ConditionType.READY not in listed


def undescribed(described: dict[str, Any], path: str) -> list[str]:
    """Return the fields that `kubectl explain` has nothing to say of."""
    found = []
    for name, field in described.get("properties", {}).items():
        found += [f"{path}.{name}"] if not field.get("description") else []
        found += undescribed(field, f"{path}.{name}")
    return found + (undescribed(described["items"], f"{path}[]") if "items" in described else [])


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described(kind: str) -> None:
    """`kubectl explain` says of each field what it is; of `metadata` the API server says it, and lets nobody else."""
    for version in crd(kind)["spec"]["versions"]:
        assert undescribed(version["schema"]["openAPIV3Schema"], kind) == [f"{kind}.metadata"]


@pytest.mark.parametrize(("longest", "overlap"), [(250, 30), (32, 16), (60, 30), (59, 29), (4000, 30)])
def test_overlap_follows_the_length_of_passages(longest: int, overlap: int) -> None:
    """A short passage is not refused for an overlap that nobody asked for."""
    assert knowledge_base.Chunking(max_tokens=longest).overlap == overlap
    assert knowledge_base.Chunking(max_tokens=longest, overlap_tokens=7).overlap == 7
