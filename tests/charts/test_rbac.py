"""Rights: each one written down here, none by pattern, none that leads to more."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

Json = dict[str, Any]
OPERATOR = "system:serviceaccount:assistant-platform:assistant-operator"
GATEWAY = "system:serviceaccount:assistant-platform:assistant-gateway"
ROUTES = "assistant-platform-routes"

READ = {"get", "list", "watch"}
OWNED = READ | {"create", "patch", "delete"}
# (role, API group, resource) -> verbs. Whoever changes a role changes this list too, and says why in the commit.
RIGHTS = {
    ("assistant-operator", "assistantplatform.io", "assistants"): READ | {"patch"},
    ("assistant-operator", "assistantplatform.io", "knowledgebases"): READ | {"patch"},
    ("assistant-operator", "assistantplatform.io", "tenants"): READ,
    ("assistant-operator", "assistantplatform.io", "assistants/status"): {"patch"},
    ("assistant-operator", "assistantplatform.io", "knowledgebases/status"): {"patch"},
    ("assistant-operator", "assistantplatform.io", "tenants/status"): {"patch"},
    ("assistant-operator", "", "namespaces"): {"get"},
    ("assistant-operator", "", "secrets"): OWNED,
    ("assistant-operator", "", "configmaps"): OWNED,
    ("assistant-operator", "", "services"): OWNED,
    ("assistant-operator", "", "serviceaccounts"): OWNED,
    ("assistant-operator", "", "pods"): READ | {"patch"},
    ("assistant-operator", "", "events"): {"create"},
    ("assistant-operator", "apps", "deployments"): OWNED,
    ("assistant-operator", "networking.k8s.io", "networkpolicies"): OWNED,
    ("assistant-operator", "policy", "poddisruptionbudgets"): OWNED,
    ("assistant-operator", "coordination.k8s.io", "leases"): {"create", "get", "update"},
    ("assistant-gateway", "", "secrets"): READ,
    ("assistant-uninstall-guard", "assistantplatform.io", "assistants"): {"list"},
    ("assistant-uninstall-guard", "assistantplatform.io", "knowledgebases"): {"list"},
    ("assistant-platform-view", "assistantplatform.io", "assistants"): READ,
    ("assistant-platform-view", "assistantplatform.io", "knowledgebases"): READ,
    ("assistant-platform-edit", "assistantplatform.io", "assistants"): {
        *("create", "update", "patch", "delete", "deletecollection")
    },
    ("assistant-platform-edit", "assistantplatform.io", "knowledgebases"): {
        *("create", "update", "patch", "delete", "deletecollection")
    },
}


def rules(objects: list[Json]) -> Iterator[tuple[str, str, str, set[str]]]:
    for role in objects:
        if role["kind"] in ("Role", "ClusterRole"):
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        yield role["metadata"]["name"], group, resource, set(rule["verbs"])


def test_rights_are_exactly_those_written_down(render: Callable[..., list[Json]]) -> None:
    """No right comes or goes unnoticed."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for role, group, resource, verbs in rules(render()):
        found.setdefault((role, group, resource), set()).update(verbs)
    assert found == RIGHTS


def test_no_right_is_a_pattern_or_leads_to_more(render: Callable[..., list[Json]]) -> None:
    """No wildcard, no Roles, bindings, webhooks, tokens or definitions, and nothing to act as somebody else."""
    forbidden_verbs = {"*", "escalate", "bind", "impersonate", "approve", "sign"}
    forbidden_groups = {
        *("*", "rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io"),
        *("certificates.k8s.io", "apiregistration.k8s.io"),
    }
    forbidden_resources = {
        "*",
        "nodes",
        "pods/exec",
        "pods/attach",
        "serviceaccounts/token",
        "pods/ephemeralcontainers",
    }
    for role, group, resource, verbs in rules(render()):
        assert not verbs & forbidden_verbs, (role, resource)
        assert group not in forbidden_groups, (role, group)
        assert resource not in forbidden_resources, (role, resource)


def test_every_binding_names_one_service_account_and_a_role_of_ours(render: Callable[..., list[Json]]) -> None:
    """Nothing is bound to groups of users, and of the cluster's own roles only the one that shows signing keys."""
    objects = render()
    roles = {o["metadata"]["name"] for o in objects if o["kind"] in ("Role", "ClusterRole")}
    accounts = {o["metadata"]["name"] for o in objects if o["kind"] == "ServiceAccount"}
    for binding in objects:
        if not binding["kind"].endswith("RoleBinding") and binding["kind"] != "RoleBinding":
            continue
        (subject,) = binding["subjects"]
        assert subject["kind"] == "ServiceAccount"
        assert subject["namespace"] == "assistant-platform"
        assert subject["name"] in accounts
        assert binding["roleRef"]["name"] in roles | {"system:service-account-issuer-discovery"}


ASKED = [
    (OPERATOR, "patch deployments.apps -n acme", True),
    (OPERATOR, "create secrets -n assistant-platform-routes", True),
    (OPERATOR, "patch assistants.assistantplatform.io --subresource=status -n acme", True),
    (OPERATOR, "update leases.coordination.k8s.io/assistant-operator -n assistant-platform", True),
    (OPERATOR, "update leases.coordination.k8s.io/other -n assistant-platform", False),
    (OPERATOR, "create leases.coordination.k8s.io -n acme", False),
    (OPERATOR, "create clusterrolebindings.rbac.authorization.k8s.io", False),
    (OPERATOR, "create pods -n acme", False),
    (OPERATOR, "create pods --subresource=exec -n acme", False),
    (OPERATOR, "create serviceaccounts --subresource=token -n acme", False),
    (OPERATOR, "delete namespaces", False),
    (OPERATOR, "patch tenants.assistantplatform.io", False),
    (OPERATOR, "delete assistants.assistantplatform.io -n acme", False),
    (GATEWAY, f"list secrets -n {ROUTES}", True),
    (GATEWAY, f"create secrets -n {ROUTES}", False),
    (GATEWAY, "get secrets -n assistant-platform", False),
    (GATEWAY, "list secrets -n acme", False),
    (GATEWAY, "list assistants.assistantplatform.io -A", False),
]


@pytest.mark.parametrize(("account", "question", "expected"), ASKED, ids=[f"{a[-8:]} {q}" for a, q, _ in ASKED])
def test_a_real_server_agrees(cluster: Any, account: str, question: str, expected: bool) -> None:
    """The roles as stored and bound let each part do its work, and nothing beside it."""
    done = cluster.kubectl("auth", "can-i", f"--as={account}", *question.split())
    assert done.stdout.strip() == ("yes" if expected else "no"), done.stderr


def test_the_gateway_may_read_the_keys_that_sign_tokens(cluster: Any) -> None:
    """Without them it could not tell tenants apart."""
    done = cluster.kubectl("get", "--raw", "/openid/v1/jwks", f"--as={GATEWAY}", "--as-group=x")
    assert done.returncode == 0, done.stderr
    assert '"keys"' in done.stdout


def test_who_may_edit_a_namespace_may_edit_its_assistants(cluster: Any) -> None:
    """The roles carry the labels by which Kubernetes adds them to its own (a controller does so, not this server)."""
    for name, label in (("view", "aggregate-to-view"), ("edit", "aggregate-to-edit")):
        role = cluster.get("clusterrole", f"assistant-platform-{name}")
        assert role["metadata"]["labels"][f"rbac.authorization.k8s.io/{label}"] == "true"
        aggregate = cluster.get("clusterrole", name)["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"]
        assert aggregate.items() <= role["metadata"]["labels"].items()
