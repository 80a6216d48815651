"""A real API server refuses bad resources with sentences a person can act on, and takes every example."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).parents[3] / "crds" / "examples"


def example(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    document["metadata"]["name"] = f"{document['metadata']['name']}-v"
    return document


def changed(name: str, path: str, value: Any) -> dict[str, Any]:
    """Return the example with the field at the dotted `path` set, or removed where `value` is None."""
    document = copy.deepcopy(example(name))
    *parents, last = path.split(".")
    place = document["spec"]
    for parent in parents:
        place = place.setdefault(parent, {})
    if value is None:
        place.pop(last)
    else:
        place[last] = value
    return document


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_is_accepted(kube: Any, path: Path) -> None:
    """Smallest and fullest of each kind pass the schema and its rules."""
    result = kube.kubectl("apply", "--dry-run=server", "-f", str(path))
    assert result.returncode == 0, result.stderr


REFUSED = [
    ("assistant-smallest", "model.provider", None, "Set exactly one of model.provider"),
    ("assistant-smallest", "model.endpoint", {"url": "https://x.example/v1"}, "Set exactly one of model.provider"),
    ("assistant-smallest", "model.name", None, "spec.model.name"),
    ("assistant-smallest", "model.parameters", {"temperature": "3"}, 'temperature must be a decimal from "0" to "2"'),
    ("assistant-smallest", "model.parameters", {"topP": "1.5"}, 'topP must be a decimal from "0" to "1"'),
    ("assistant-smallest", "retrieval", {"minScore": "-1"}, 'minScore must be a decimal from "0" to "1"'),
    ("assistant-smallest", "limits", {"requestsPerMinute": 0}, "requestsPerMinute"),
    ("assistant-smallest", "limits", {"tokensPerDay": 0}, "tokensPerDay"),
    ("assistant-smallest", "limits", {"budget": {"amount": "1.00"}}, "spec.limits.budget.period"),
    ("assistant-smallest", "limits", {"budget": {"amount": "1,00", "period": "Day"}}, 'such as "25.00"'),
    ("assistant-smallest", "limits", {"budget": {"amount": "0.0000001", "period": "Day"}}, 'such as "25.00"'),
    ("assistant-smallest", "limits", {"budget": {"amount": "100000000", "period": "Day"}}, 'such as "25.00"'),
    ("assistant-smallest", "limits", {"budget": {"amount": 25, "period": "Day"}}, "must be of type string"),
    ("assistant-smallest", "limits", {"budget": {"amount": "1", "period": "Week"}}, '"Day", "Month"'),
    ("tenant-smallest", "limits", {"budget": {"amount": "1", "period": "Day", "currency": "EUR"}}, '"USD"'),
    ("tenant-smallest", "timeZone", "../etc/passwd", "timeZone"),
    ("tenant-smallest", "failurePolicy", "Open", '"Closed", "Bounded"'),
    ("assistant-smallest", "tools", [], 'unknown field "spec.tools"'),
    ("assistant-fullest", "model.endpoint.url", "ftp://llm.example.com", "must be an http or https URL"),
    ("assistant-fullest", "model.endpoint.url", "https://u:p@llm.example.com", "no user, password, query"),
    ("assistant-fullest", "knowledgeBases", [{"name": "a"}, {"name": "a"}], "Duplicate value"),
    ("assistant-fullest", "model.fallbacks", [{"name": "m"}], "of each of model.fallbacks"),
    ("assistant-fullest", "model.fallbacks", [{"name": "m", "provider": "a"}] * 5, "at most 4 items"),
    (
        "assistant-fullest",
        "model.fallbacks",
        [{"name": "m", "endpoint": {"url": "ftp://x"}}],
        "must be an http or https URL",
    ),
    (
        "assistant-fullest",
        "instructionsFrom",
        {"configMapKeyRef": {"name": "a", "key": "b"}},
        "Set either instructions or instructionsFrom, not both.",
    ),
    ("knowledgebase-smallest", "embedding.dimensions", 0, "dimensions"),
    ("knowledgebase-smallest", "chunking", {"maxTokens": 100, "overlapTokens": 60}, "at most half"),
    ("knowledgebase-smallest", "limits", {"bytes": "many"}, "must be a quantity above zero"),
    *(
        ("knowledgebase-smallest", "limits", {"bytes": size}, "must be a quantity above zero")
        for size in ("0", "1m", "1e4400", "1e5000000", "1e-3", "2Pi", "1Ei", "0.5", "0.0001k", "-1", "1n")
    ),
    *(
        ("tenant-smallest", "serving", {"resources": {"requests": {"cpu": size}}}, "must be a quantity from 0 to 1Pi")
        for size in ("1e4400", "1e5000000", "-1", "2Pi", "1n", "")
    ),
    *(
        ("assistant-fullest", "model.endpoint.apiKeySecretRef.name", name, "should match")
        for name in ("../x", "../../other/secrets/x", "x?y", "x/y", "X", "%2e%2e")
    ),
    ("assistant-fullest", "knowledgeBases", [{"name": "../x"}], "should match"),
    ("tenant-smallest", "serving", {"resources": {"limits": {"cpu": "lots"}}}, "must be a quantity"),
    ("tenant-smallest", "serving", {"replicas": {"min": 0}}, "replicas"),
]


ACCEPTED = [
    *(("knowledgebase-smallest", "limits", {"bytes": size}) for size in ("1", "1.5Gi", "500Mi", "12e6", "1k", "1Pi")),
    *(
        ("tenant-smallest", "serving", {"resources": {"limits": {"cpu": size}}})
        for size in ("0", ".5", "0.1", "250m", "2", "1e3", "1Ki", "12E2")
    ),
]


@pytest.mark.parametrize(("name", "path", "value"), ACCEPTED)
def test_quantities_as_people_write_them_are_accepted(kube: Any, name: str, path: str, value: Any) -> None:
    """Every usual way to write a quantity passes."""
    result = kube.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(changed(name, path, value)))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("name", "path", "value", "sentence"), REFUSED)
def test_a_bad_resource_is_refused_with_what_to_do(kube: Any, name: str, path: str, value: Any, sentence: str) -> None:
    """The answer names the field or says what would be right."""
    result = kube.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(changed(name, path, value)))
    assert result.returncode != 0
    assert sentence in result.stderr


def test_the_embedding_of_a_knowledge_base_cannot_change(kube: Any) -> None:
    """Vectors of two models cannot be compared, so name and dimensions are fixed; the rest may change."""
    document = example("knowledgebase-smallest")
    assert kube.kubectl("apply", "-f", "-", input=yaml.safe_dump(document)).returncode == 0
    try:
        document["spec"]["displayName"] = "Renamed"
        assert kube.kubectl("apply", "-f", "-", input=yaml.safe_dump(document)).returncode == 0
        document["spec"]["embedding"]["dimensions"] = 256
        refused = kube.kubectl("apply", "-f", "-", input=yaml.safe_dump(document))
        assert refused.returncode != 0
        assert "Make a new KnowledgeBase" in refused.stderr
    finally:
        kube.kubectl("delete", "kb", document["metadata"]["name"])
