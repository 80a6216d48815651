"""What people see with kubectl, and what Prometheus sees."""

from __future__ import annotations

import httpx
from e2e_platform import PLATFORM, Platform, Tenant, eventually

from assistant_crds import naming


def columns(tenant: Tenant, kind: str, *options: str) -> dict[str, dict[str, str]]:
    """The printed table of a kind: columns by name of the resource."""
    scope = () if kind == "tenants" else ("-n", tenant.namespace)
    head, *rows = tenant.cluster.kubectl("get", kind, *scope, *options).splitlines()
    starts = [head.index(title) for title in head.split()]
    ends = [*starts[1:], None]
    tables = [[line[start:end].strip() for start, end in zip(starts, ends, strict=True)] for line in (head, *rows)]
    return {row[0]: dict(zip(tables[0], row, strict=True)) for row in tables[1:]}


def test_the_columns_of_assistants_hold_true_values(acme: Tenant) -> None:
    """`kubectl get asst` shows readiness, model, pods, limit and URL as they are."""
    row = columns(acme, "asst", "-o", "wide")["support"]
    assert row["READY"] == "True"
    assert row["MODEL"] == "demo/stand-in"
    assert row["REPLICAS"] == "1"
    assert row["LIMIT"].endswith("/min")
    assert row["URL"] == f"http://{naming.API}.{acme.namespace}.svc:8080/v1"
    assert row["AGE"]


def test_the_columns_of_knowledge_bases_hold_true_values(acme: Tenant) -> None:
    """`kubectl get kb` shows the documents and vectors that there are."""
    with acme.http() as client:
        documents = client.get("/api/v1/knowledge-bases/handbook/documents").json()["data"]
    chunks = sum(document["chunks"] for document in documents)

    def true() -> None:
        row = columns(acme, "kb", "-o", "wide")["handbook"]
        assert (row["READY"], row["DOCS"], row["FAILED"], row["ORPHANS"]) == ("True", "5", "0", "0")
        assert row["VECTORS"] == str(chunks)
        assert row["MODEL"] == "demo/stand-in-embedding"

    eventually(true, seconds=30, every=1)


def test_kubectl_wait_returns(acme: Tenant) -> None:
    """`kubectl wait --for=condition=Ready` works, as for any other resource."""
    acme.cluster.kubectl("wait", "--for=condition=Ready", "asst/support", "-n", acme.namespace, "--timeout=30s")


def test_each_part_serves_its_metrics(acme: Tenant, platform: Platform) -> None:
    """The operator's, the gateway's and the API's numbers are there for Prometheus."""
    parts = {
        "deployment/assistant-operator": (PLATFORM, "reconcile"),
        "deployment/assistant-gateway": (PLATFORM, "model"),
        f"deployment/{naming.API}": (acme.namespace, "http"),
    }
    for target, (namespace, word) in parts.items():
        port = platform.forward(namespace, target, 9090)
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        assert [name for name in names if name.startswith("assistant_") and word in name], sorted(names)
