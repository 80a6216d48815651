"""The ValidatingAdmissionPolicies, asked on a real API server: what they refuse, what they let pass, what they say."""

import json
import time
from typing import Any

import pytest

Json = dict[str, Any]
OPERATOR = "--as=system:serviceaccount:assistant-platform:assistant-operator"
MARKED = {"app.kubernetes.io/managed-by": "assistant-operator"}
TENANT = "acme"


def assistant(namespace: str = TENANT, name: str = "a", url: str = "") -> Json:
    model: Json = {"name": "m"} | ({"endpoint": {"url": url}} if url else {"provider": "x"})
    return {
        "apiVersion": "assistantplatform.io/v1alpha1",
        "kind": "Assistant",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": model},
    }


def with_fallback(url: str = "") -> Json:
    """Return an Assistant whose second fallback has an endpoint of its own."""
    made = assistant()
    made["spec"]["model"]["fallbacks"] = [{"name": "s", "provider": "x"}, {"name": "m", "endpoint": {"url": url}}]
    return made


def knowledge_base(namespace: str = TENANT, url: str = "") -> Json:
    source: Json = {"endpoint": {"url": url}} if url else {"provider": "x"}
    return {
        "apiVersion": "assistantplatform.io/v1alpha1",
        "kind": "KnowledgeBase",
        "metadata": {"name": "a", "namespace": namespace},
        "spec": {"embedding": {"name": "m", "dimensions": 8} | source},
    }


CONFINED: Json = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def core(kind: str, name: str, namespace: str = TENANT, labels: dict[str, str] | None = None, **more: Any) -> Json:
    metadata = {"name": name, "namespace": namespace, "labels": MARKED if labels is None else labels}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


def container(security: Json | None = None, **more: Any) -> Json:
    """Return a container as Pod Security `restricted` wants it, but for what is said otherwise."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {"name": "c", "image": "x", "securityContext": restricted | (security or {})} | more


def deployment(**pod: Any) -> Json:
    spec = {"serviceAccountName": "assistant-api", "securityContext": CONFINED, "containers": [container()]} | pod
    labels = {"app.kubernetes.io/name": "assistant-api"}
    return core("Deployment", "assistant-api") | {
        "apiVersion": "apps/v1",
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


@pytest.fixture(scope="module")
def admission(cluster: Any) -> Any:
    """The cluster once its policies are in force (a moment after they were made), with a tenant's namespace."""
    cluster.upgrade("--set", "tenantEndpoints.allowHosts={*.llm.example,10.1.2.3}")
    assert cluster.kubectl("create", "namespace", TENANT).returncode == 0
    refused = [assistant("kube-system"), assistant(url="http://a.svc/v1"), knowledge_base(url="http://a.svc/v1")]
    allowed = [assistant(url="http://a.llm.example/v1"), knowledge_base(url="http://a.llm.example/v1")]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if all(cluster.apply(o, "--dry-run=server").returncode for o in refused) and not any(
            cluster.apply(o, "--dry-run=server").returncode for o in allowed
        ):
            return cluster
        time.sleep(0.2)
    pytest.fail("the policies were not in force after 30 s")


@pytest.mark.parametrize("make", [assistant, knowledge_base])
@pytest.mark.parametrize("namespace", ["kube-system", "assistant-platform", "assistant-platform-routes"])
def test_no_assistant_in_the_clusters_or_the_platforms_namespaces(admission: Any, make: Any, namespace: str) -> None:
    """The sentence names the namespace and says where to go instead."""
    done = admission.apply(make(namespace), "--dry-run=server")
    assert done.returncode != 0
    assert f"Namespace {namespace} belongs to the " in done.stderr
    assert "in a namespace of its tenant" in done.stderr


@pytest.mark.parametrize("name", ["kube-system", "assistant-platform"])
def test_no_tenant_of_such_a_name(admission: Any, name: str) -> None:
    """A Tenant of that name would never come to life."""
    tenant = {"apiVersion": "assistantplatform.io/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": {}}
    assert f"namespace {name} cannot be a tenant" in admission.apply(tenant, "--dry-run=server").stderr
    tenant["metadata"] = {"name": TENANT}
    assert admission.apply(tenant, "--dry-run=server").returncode == 0


INTERNAL = [
    *("http://localhost/v1", "http://vllm/v1", "http://vllm.models.svc:8000/v1", "http://VLLM.models.SVC/v1"),
    *("https://vllm.models.svc.cluster.local./v1", "https://box.local/v1", "https://metadata.google.internal/v1"),
    *("http://127.0.0.1/v1", "http://10.0.0.1/v1", "http://192.168.1.1:8000/v1", "http://172.16.0.1/v1"),
    *("http://169.254.169.254/v1", "http://0.0.0.0/v1", "http://100.64.1.1/v1", "http://198.18.0.1/v1"),
    *(
        "http://[::1]/v1",
        "http://[fd00::1]/v1",
        "http://[fe80::1]/v1",
        "http://[::ffff:10.0.0.1]/v1",
        "http://224.0.0.1/v1",
    ),
]
PUBLIC = [
    *("https://llm.example.com/v1", "https://api.openai.com/v1", "http://93.184.215.14/v1"),
    *("https://[2606:2800:220:1::1]/v1", "https://my.svc.example.com/v1"),
    *("http://vllm.llm.example/v1", "http://10.1.2.3:8000/v1"),
]


@pytest.mark.parametrize("make", [assistant, with_fallback, knowledge_base])
@pytest.mark.parametrize("url", INTERNAL)
def test_endpoints_inside_the_cluster_are_refused(admission: Any, make: Any, url: str) -> None:
    """Names and addresses that lead inside, in whatever spelling; the answer says how to have one allowed."""
    done = admission.apply(make(url=url), "--dry-run=server")
    assert done.returncode != 0
    assert "tenantEndpoints.allowHosts" in done.stderr


@pytest.mark.parametrize("make", [assistant, with_fallback, knowledge_base])
@pytest.mark.parametrize("url", PUBLIC)
def test_public_and_allowed_endpoints_pass(admission: Any, make: Any, url: str) -> None:
    """The internet, and what the platform team allows, also where it resolves to private addresses."""
    done = admission.apply(make(url=url), "--dry-run=server")
    assert done.returncode == 0, done.stderr


def allow_editor(cluster: Any, user: str) -> None:
    """Let a user view and edit assistants in the tenant's namespace, as Kubernetes' role `edit` would."""
    for right in ("view", "edit"):
        done = cluster.kubectl(
            *("create", "rolebinding", f"{user}-{right}", "-n", TENANT),
            *(f"--clusterrole=assistant-platform-{right}", f"--user={user}"),
        )
        assert done.returncode == 0, done.stderr


def test_a_finalizer_goes_only_with_the_data(admission: Any) -> None:
    """An editor cannot free a deleted resource from its clean-up; the operator and administrators can."""
    allow_editor(admission, "jane")
    freeing = ["--type=merge", "-p", '{"metadata":{"finalizers":null}}']
    for name in ("operator", "administrator"):
        document = assistant(name=f"freed-by-{name}")
        document["metadata"]["finalizers"] = ["assistantplatform.io/cleanup"]
        assert admission.apply(document).returncode == 0
        target = ["assistant", f"freed-by-{name}", "-n", TENANT]
        assert admission.kubectl("delete", *target, "--wait=false", "--as=jane").returncode == 0
        assert admission.kubectl("annotate", *target, "note=still-mine", "--as=jane").returncode == 0
        refused = admission.kubectl("patch", *target, *freeing, "--as=jane")
        assert "goes once the operator has removed the data" in refused.stderr
        freed = admission.kubectl("patch", *target, *freeing, *([OPERATOR] if name == "operator" else []))
        assert freed.returncode == 0, freed.stderr
        assert "NotFound" in admission.kubectl("get", *target).stderr


LEASH = [
    ("its own Secret", core("Secret", "assistant-stores"), ""),
    ("its own ConfigMap", core("ConfigMap", "assistant-config"), ""),
    ("a policy", core("Secret", "policy-t-0123456789", "assistant-platform-routes"), ""),
    ("its Deployment", deployment(), ""),
    ("another's Secret", core("Secret", "theirs"), "own by their name"),
    ("an unmarked Secret", core("Secret", "assistant-stores", labels={}), "carry the label"),
    ("the platform's Secret", core("Secret", "assistant-postgres", "assistant-platform"), "tenants' namespaces only"),
    ("the cluster's ConfigMap", core("ConfigMap", "assistant-x", "kube-system"), "tenants' namespaces only"),
    ("a ConfigMap among the policies", core("ConfigMap", "policy-x", "assistant-platform-routes"), "own by their name"),
    ("a token", core("Secret", "assistant-x", type="kubernetes.io/service-account-token"), "plain Secrets only"),
    ("another ServiceAccount", deployment(serviceAccountName="admin"), "under the ServiceAccount assistant-api"),
    ("the node's network", deployment(hostNetwork=True), "share nothing with their node"),
    ("the node's files", deployment(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "projected tokens"),
    ("privileges", deployment(containers=[{"name": "c", "image": "x"}]), "no privileges"),
    (
        "a capability",
        deployment(containers=[container({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}})]),
        "add none",
    ),
    ("all capabilities", deployment(containers=[container({"capabilities": {}})]), "drop all capabilities"),
    ("root", deployment(containers=[container({"runAsUser": 0})]), "do not run as root"),
    ("root by the pod", deployment(securityContext={**CONFINED, "runAsUser": 0}), "do not run as root"),
    ("perhaps root", deployment(containers=[container({"runAsNonRoot": False})]), "do not run as root"),
    ("whatever the image says", deployment(securityContext={}), "do not run as root"),
    (
        "root in an init container",
        deployment(initContainers=[container({"runAsUser": 0}, name="i")]),
        "do not run as root",
    ),
    ("no seccomp", deployment(securityContext={"runAsNonRoot": True}), "seccomp"),
    ("seccomp off", deployment(containers=[container({"seccompProfile": {"type": "Unconfined"}})]), "seccomp"),
    ("a port of the node", deployment(containers=[container(ports=[{"containerPort": 1, "hostPort": 1}])]), "no port"),
    ("a sysctl", deployment(securityContext={**CONFINED, "sysctls": [{"name": "a.b", "value": "1"}]}), "confines them"),
    (
        "another SELinux type",
        deployment(securityContext={**CONFINED, "seLinuxOptions": {"type": "t"}}),
        "confines them",
    ),
    (
        "AppArmor off",
        deployment(containers=[container({"appArmorProfile": {"type": "Unconfined"}})]),
        "confines them",
    ),
    (
        "a probe of another host",
        deployment(containers=[container(livenessProbe={"httpGet": {"port": 1, "host": "10.0.0.1"}})]),
        "no other host",
    ),
]


@pytest.mark.parametrize(("document", "sentence"), [case[1:] for case in LEASH], ids=[case[0] for case in LEASH])
def test_the_operator_is_on_a_leash(admission: Any, document: Json, sentence: str) -> None:
    """Its rights reach everywhere, as tenants may be anywhere; the policies hold it to its own objects."""
    if document.get("type", "").endswith("token"):
        document["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "assistant-api"}
        assert admission.apply(core("ServiceAccount", "assistant-api")).returncode == 0
    # As the operator does it: server-side apply, whose patch creates what is not there.
    options = ("--server-side", "--force-conflicts", "--field-manager=assistant-operator", "--dry-run=server", OPERATOR)
    done = admission.apply(document, *options)
    assert (done.returncode == 0) is (not sentence), done.stderr
    assert sentence in done.stderr


def test_the_leash_holds_nobody_else(admission: Any) -> None:
    """The policies ask who writes; a tenant's own objects are the tenant's business."""
    assert admission.apply(core("Secret", "theirs", labels={}), "--dry-run=server").returncode == 0


def test_the_operator_annotates_pods_and_no_more(admission: Any) -> None:
    """The annotation that refreshes a mounted configuration passes; another image or a stranger's pod does not."""
    assert admission.apply(core("ServiceAccount", "assistant-api")).returncode == 0
    for name, labels in (("assistant-api-x", MARKED), ("theirs", {})):
        spec = {"serviceAccountName": "assistant-api", "containers": [{"name": "c", "image": "x"}]}
        assert admission.apply(core("Pod", name, labels=labels, spec=spec)).returncode == 0

    def patch(name: str, change: Json) -> Any:
        return admission.kubectl(
            "patch",
            "pod",
            name,
            "-n",
            TENANT,
            "--type=strategic",
            "-p",
            json.dumps(change),
            "--dry-run=server",
            OPERATOR,
        )

    annotation = {"metadata": {"annotations": {"assistantplatform.io/config-generation": "1"}}}
    assert patch("assistant-api-x", annotation).returncode == 0
    image = {"spec": {"containers": [{"name": "c", "image": "evil"}]}}
    assert "changes nothing else" in patch("assistant-api-x", image).stderr
    assert "own by their name" in patch("theirs", annotation).stderr


def test_the_operator_deletes_its_own_only(admission: Any) -> None:
    """Also what lost its label, so that a tenant cannot keep it from tidying up; never what is another's by its name,
    nor what has a name of ours and neither our label nor our annotation."""
    objects = (("assistant-config", False), ("assistant-api", True), ("theirs", False))
    for name, ours in objects:
        document = core("ConfigMap", name, labels={})
        document["metadata"]["annotations"] = {"assistantplatform.io/applied": "0"} if ours else {}
        assert admission.apply(document).returncode == 0
    assert admission.apply(core("ConfigMap", "assistant-marked")).returncode == 0
    for name in ("assistant-api", "assistant-marked"):
        done = admission.kubectl("delete", "configmap", name, "-n", TENANT, OPERATOR)
        assert done.returncode == 0, done.stderr
    for name, sentence in (("theirs", "own by their name"), ("assistant-config", "it deletes what has it")):
        assert sentence in admission.kubectl("delete", "configmap", name, "-n", TENANT, OPERATOR).stderr


def test_the_operator_tells_the_gateway_who_it_is(admission: Any) -> None:
    """Beside the policies one Secret of the routes namespace is the operator's to write."""
    options = ("--server-side", "--field-manager=assistant-operator", "--dry-run=server", OPERATOR)
    identity = core("Secret", "operator-identity", "assistant-platform-routes")
    assert admission.apply(identity, *options).returncode == 0
    assert "own by their name" in admission.apply(core("Secret", "operator-identity"), *options).stderr
