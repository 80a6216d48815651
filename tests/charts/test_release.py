"""A release over its life, on a real API server: installed, upgraded, uninstalled."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from assistant_crds import naming

CHART = Path(__file__).parents[2] / "charts" / "assistant-platform"
NAMESPACE = "assistant-platform"
PASSWORDS = {
    "assistant-postgres": ["operator-password", "ledger-password", "superuser-password"],
    "assistant-redis": ["operator-password", "gateway-password"],
    "assistant-weaviate": ["api-key"],
}


def secret(cluster: Any, name: str) -> dict[str, str]:
    data = cluster.get("secret", name, "-n", NAMESPACE)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def test_passwords_are_random_and_in_the_addresses(cluster: Any) -> None:
    """Every password is its own, long enough, and the ready-made addresses hold it."""
    found = {name: secret(cluster, name) for name in PASSWORDS}
    passwords = [found[name][key] for name, keys in PASSWORDS.items() for key in keys]
    assert len(set(passwords)) == len(passwords)
    assert all(len(password) == 32 for password in passwords)
    dsn = urlsplit(found["assistant-postgres"]["dsn"])
    assert (dsn.username, dsn.password) == ("assistant_operator", found["assistant-postgres"]["operator-password"])
    assert (dsn.hostname, dsn.port) == (f"assistant-postgres.{NAMESPACE}.svc", 5432)
    ledger = urlsplit(found["assistant-postgres"]["ledger-url"])
    assert (ledger.username, ledger.password) == (
        naming.login_role(naming.LEDGER),
        found["assistant-postgres"]["ledger-password"],
    )
    assert (ledger.hostname, ledger.path) == (dsn.hostname, f"/{naming.LEDGER}")
    for user in ("operator", "gateway"):
        url = urlsplit(found["assistant-redis"][f"{user}-url"])
        assert (url.username, url.password) == (user, found["assistant-redis"][f"{user}-password"])
    assert found["assistant-weaviate"]["grpc-url"] == f"assistant-weaviate.{NAMESPACE}.svc:50051"


def test_passwords_stay_over_upgrades(cluster: Any) -> None:
    """The stores' volumes know the old passwords, and the running parts too."""
    before = {name: secret(cluster, name) for name in PASSWORDS}
    cluster.upgrade("--set", "logFormat=console")
    cluster.upgrade()
    assert {name: secret(cluster, name) for name in PASSWORDS} == before


def test_a_lost_password_is_made_anew_and_the_others_stay(cluster: Any) -> None:
    """Rotation: delete the Secret of one store and upgrade."""
    before = {name: secret(cluster, name) for name in PASSWORDS}
    assert cluster.kubectl("delete", "secret", "assistant-redis", "-n", NAMESPACE).returncode == 0
    cluster.upgrade()
    after = {name: secret(cluster, name) for name in PASSWORDS}
    assert after["assistant-postgres"] == before["assistant-postgres"]
    assert after["assistant-redis"]["operator-password"] != before["assistant-redis"]["operator-password"]


def test_a_second_upgrade_changes_no_object(cluster: Any) -> None:
    """Nothing in the templates is random or new each time, so no pod restarts without a reason."""
    kinds = "deployments,statefulsets,services,configmaps,networkpolicies,serviceaccounts,poddisruptionbudgets"

    def generations() -> dict[str, str]:
        items = cluster.get(kinds, "-n", NAMESPACE)["items"]
        return {
            f"{item['kind']}/{item['metadata']['name']}": item["metadata"].get(
                "generation", item["metadata"]["resourceVersion"]
            )
            for item in items
        }

    cluster.upgrade()
    before = generations()
    cluster.upgrade()
    assert generations() == before


def test_the_routes_namespace_enforces_pod_security(cluster: Any) -> None:
    """No pod belongs there, and none with rights could be put there."""
    labels = cluster.get("namespace", f"{NAMESPACE}-routes")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_second_installation_in_the_cluster_is_refused(cluster: Any) -> None:
    """Two operators would fight over every Assistant; Helm stops at the objects that the first one has."""
    done = cluster.helm.run("install", "second", str(CHART), "--namespace", "elsewhere", "--create-namespace")
    assert done.returncode != 0
    assert "cannot be imported into the current release" in done.stderr


def guard(cluster: Any, tmp_path: Path) -> "subprocess.CompletedProcess[str]":
    """Run the uninstall guard's script as its pod would, under its own ServiceAccount."""
    token = cluster.kubectl("create", "token", "assistant-uninstall-guard", "-n", NAMESPACE)
    assert token.returncode == 0, token.stderr
    kubeconfig = yaml.safe_load(cluster.server.kubeconfig.read_text())
    authority = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "token").write_text(token.stdout.strip())
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority))
    address = urlsplit(cluster.server.url)
    environment = {
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
        "SERVICE_ACCOUNT_DIR": str(tmp_path),
        "ROLLBACK": "helm rollback platform 7",
    }
    script = CHART / "files" / "uninstall.py"
    return subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_uninstalling_waits_for_the_last_assistant(cluster: Any, tmp_path: Path) -> None:
    """The guard names what is left and what to do, and lets go once nothing is left."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "guarded"}}
    assistant = {
        "apiVersion": "assistantplatform.io/v1alpha1",
        "kind": "Assistant",
        "metadata": {"name": "left", "namespace": "guarded"},
        "spec": {"model": {"provider": "x", "name": "m"}},
    }
    assert cluster.apply(namespace).returncode == 0
    assert cluster.apply(assistant).returncode == 0
    refused = guard(cluster, tmp_path)
    assert refused.returncode == 1
    assert "assistants guarded/left" in refused.stdout
    assert "kubectl delete assistants,knowledgebases --all" in refused.stdout
    assert "helm rollback platform 7" in refused.stdout
    everything = ("delete", "assistants,knowledgebases", "--all", "--all-namespaces")
    assert cluster.kubectl(*everything).returncode == 0
    allowed = guard(cluster, tmp_path)
    assert (allowed.returncode, allowed.stdout) == (0, ""), allowed.stderr


@pytest.fixture
def uninstalled(cluster: Any) -> Any:
    """The cluster after `helm uninstall` (without hooks: no controller runs their Jobs here); installed again after."""
    done = cluster.helm.run("uninstall", "platform", "--namespace", NAMESPACE, "--no-hooks")
    assert done.returncode == 0, done.stderr
    yield cluster
    # The routes namespace stays in deletion for ever without a controller: finish it by hand.
    name = f"{NAMESPACE}-routes"
    raw = f"/api/v1/namespaces/{name}/finalize"
    body = f'{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}},"spec":{{"finalizers":[]}}}}'
    cluster.kubectl("replace", "--raw", raw, "-f", "-", stdin=body)
    cluster.upgrade()


def test_uninstalling_leaves_the_kinds_and_nothing_else(uninstalled: Any) -> None:
    """No role, binding, policy or object in the platform's namespace; the definitions stay."""
    kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
    ours = [
        f"{item['kind']}/{item['metadata']['name']}"
        for item in uninstalled.get(kinds)["items"]
        if item["metadata"]["name"].startswith("assistant-")
    ]
    assert ours == []
    kinds = "deployments,statefulsets,services,secrets,configmaps,roles,rolebindings,networkpolicies"
    left = [f"{i['kind']}/{i['metadata']['name']}" for i in uninstalled.get(kinds, "-n", NAMESPACE)["items"]]
    assert left == []
    assert len(uninstalled.get("crd")["items"]) == 3
