"""The local node: it comes up, is repaired, behaves like a cluster, and leaves nothing behind.

A second node is used, beside the one that the platform runs on, so that both can be looked at and taken down.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_node import (
    LAYOUT,
    cluster,
    connects,
    eventually,
    pod,
    python_inside,
    run_pod,
    serve_inside,
    up_in_background,
)

import assistant_cluster
from assistant_cluster import inventory, modes
from assistant_cluster.checkout import Checkout
from assistant_cluster.errors import ClusterError
from assistant_cluster.layout import Layout
from assistant_cluster.node import COMPONENTS, NodeCluster
from assistant_cluster.sandbox import Sandbox

pytestmark = pytest.mark.skipif(not modes.can_run_node(), reason="the node needs root on Debian or Ubuntu")


@pytest.fixture
def no_node() -> Iterator[NodeCluster]:
    """A node that is down, and is taken down again."""
    node = cluster()
    node.down()
    yield node
    node.down()


@pytest.fixture(scope="module")
def node() -> Iterator[NodeCluster]:
    """A node that is up. Tests that take it down bring up the next one with `up`."""
    node = cluster()
    node.up()
    yield node
    node.down()


@pytest.fixture
def up(node: NodeCluster) -> NodeCluster:
    """The module's node, up and healthy whatever the test before did to it."""
    node.up()
    return node


def first_process(node: NodeCluster) -> int:
    """Pid of the node's first process."""
    init = Sandbox(node.layout).find()
    assert init is not None
    return init.pid


def test_down_leaves_nothing_of_a_node_that_ran_pods(no_node: NodeCluster) -> None:
    """Processes, mounts, namespaces, links, routes, rules, sysctls, cgroups and folders are as they were before."""
    before = inventory.take(besides=Layout())
    no_node.up()
    kubectl = no_node.kubectl()
    kubectl.apply(service("default", "NodePort"))
    kubectl.apply(policy("default"))
    kubectl.apply(claim("data"))
    run_pod(no_node, pod("one", labels={"app": "web"}, **with_claim("data")))
    run_pod(no_node, pod("two"))
    during = inventory.difference(before, inventory.take(besides=Layout()))
    no_node.down()
    after = inventory.difference(before, inventory.take(besides=Layout()))
    assert {"links", "routes", "nftables", "folders", "cgroups", "processes"} <= set(during)
    assert after == {}


@pytest.mark.parametrize("seconds", [0.2, 0.6, 3.0])
def test_an_up_that_was_killed_is_finished_by_the_next(no_node: NodeCluster, seconds: float) -> None:
    """SIGKILL at any moment of `up` leaves something that the next `up` turns into a healthy node."""
    before = inventory.take(besides=Layout())
    process = up_in_background()
    time.sleep(seconds)
    process.kill()
    process.wait()
    no_node.up()
    assert no_node.status().healthy
    no_node.down()
    assert inventory.difference(before, inventory.take(besides=Layout())) == {}


@pytest.mark.parametrize("seconds", [0.4, 2.0])
def test_what_a_killed_up_left_is_removed_by_down(no_node: NodeCluster, seconds: float) -> None:
    """`down` needs no complete node and no records of it."""
    before = inventory.take(besides=Layout())
    process = up_in_background()
    time.sleep(seconds)
    process.kill()
    process.wait()
    (LAYOUT.state / "processes.json").unlink(missing_ok=True)
    no_node.down()
    assert inventory.difference(before, inventory.take(besides=Layout())) == {}


def test_two_ups_at_once_make_one_node(no_node: NodeCluster) -> None:
    """Somebody else's `up` is waited for, and its node is used."""
    processes = [up_in_background(), up_in_background()]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert no_node.status().healthy


def test_a_second_up_takes_no_time_and_changes_nothing(up: NodeCluster) -> None:
    """Idempotent: a healthy node is found healthy within two seconds, by the same processes."""
    before = up.status().components
    started = time.monotonic()
    up.up()
    assert time.monotonic() - started < 2
    assert up.status().components == before


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_program_that_died_is_started_again(up: NodeCluster, name: str) -> None:
    """`up` repairs a node that lost one of its programs; pods live on."""
    run_pod(up, pod("survivor"))
    init, process = first_process(up), up.status().components[name]
    assert process is not None
    process.signal(signal.SIGKILL)
    assert eventually(lambda: not process.alive)
    assert not up.status().healthy
    up.up()
    assert up.status().healthy
    assert first_process(up) == init
    survivor = json.loads(up.kubectl().run("get", "pod", "survivor", "--output=json"))
    assert survivor["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_node_whose_first_process_died_is_built_anew(up: NodeCluster) -> None:
    """Killing the first process ends every other one; `up` starts over."""
    init = first_process(up)
    processes = [process for process in up.status().components.values() if process]
    os.kill(init, signal.SIGKILL)
    assert eventually(lambda: not any(process.alive for process in processes))
    up.up()
    assert up.status().healthy
    assert first_process(up) != init


def test_a_network_policy_is_enforced_between_pods_but_not_for_the_machine(up: NodeCluster) -> None:
    """Pods are cut off within seconds; the machine, like any node, still reaches its pods."""
    kubectl = up.kubectl()
    for namespace in ("server", "client"):
        kubectl.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
        eventually(lambda namespace=namespace: service_account(up, namespace))
    server = run_pod(up, pod("web", namespace="server", labels={"app": "web"}))
    client = run_pod(up, pod("client", namespace="client"))
    serve_inside(server, 8080)
    kubectl.apply(service("server", "ClusterIP"))
    virtual = kubectl.run("get", "service", "web", "--namespace=server", "--output=jsonpath={.spec.clusterIP}")
    address = server["status"]["podIP"]
    assert eventually(lambda: connects(client, virtual, 80))
    kubectl.apply(policy("server"))
    assert eventually(lambda: not connects(client, virtual, 80))
    assert not connects(client, address, 8080)
    for where in ((virtual, 80), (address, 8080)):
        socket.create_connection(where, timeout=3).close()
    kubectl.run("delete", "networkpolicy", "deny-all", "--namespace=server")
    assert eventually(lambda: connects(client, address, 8080))


def test_pods_find_services_by_name_and_unknown_names_fail_at_once(up: NodeCluster) -> None:
    """Cluster DNS resolves `service.namespace.svc`, the machine's own name, and says no within a second."""
    client = run_pod(up, pod("resolver"))
    api = LAYOUT.api_service_ip
    assert lookup(client, "kubernetes.default.svc.cluster.local") == api
    assert lookup(client, "host.cluster.local") == LAYOUT.host_ip
    started = time.monotonic()
    assert lookup(client, "no-such-service.default.svc.cluster.local") == "rcode 3"
    assert time.monotonic() - started < 1


def test_a_volume_that_was_given_back_is_offered_again_empty(up: NodeCluster) -> None:
    """The next claim sees nothing of the last one's data, and a pod's group may write."""
    kubectl = up.kubectl()
    kubectl.apply(claim("notes"))
    run_pod(up, pod("writer", securityContext={"fsGroup": 10001}, **with_claim("notes")))
    name = kubectl.run("get", "pvc", "notes", "--output=jsonpath={.spec.volumeName}")
    folder = LAYOUT.volumes / name
    assert folder.stat().st_gid == 10001
    (folder / "secret").write_text("of the last owner")
    kubectl.run("delete", "pod", "writer", "--wait=true")
    kubectl.run("delete", "pvc", "notes", "--wait=true")
    assert eventually(lambda: phase(up, name) == "Released")
    up.up()
    assert eventually(lambda: phase(up, name) == "Available")
    assert list(folder.iterdir()) == []


def test_service_accounts_can_read_the_cluster_signing_keys(up: NodeCluster) -> None:
    """The issuer's discovery works for a ServiceAccount token, from inside a pod."""
    kubectl = up.kubectl()
    token = kubectl.run("create", "token", "default", "--audience=https://kubernetes.default.svc.cluster.local").strip()
    client = run_pod(up, pod("verifier"))
    program = f"""
        import json, ssl, urllib.request
        context = ssl.create_default_context(cafile="{LAYOUT.pki / "ca.crt"}")
        headers = {{"Authorization": "Bearer {token}"}}
        for path in ("/.well-known/openid-configuration", "/openid/v1/jwks"):
            request = urllib.request.Request("https://{LAYOUT.api_service_ip}" + path, headers=headers)
            print(json.dumps(json.load(urllib.request.urlopen(request, context=context, timeout=5))))
    """
    discovery, keys = (json.loads(line) for line in python_inside(client, program).splitlines())
    assert discovery["issuer"] == "https://kubernetes.default.svc.cluster.local"
    assert discovery["jwks_uri"].startswith(discovery["issuer"])
    assert [key["alg"] for key in keys["keys"]] == ["RS256"]


def test_admission_refuses_what_policies_forbid(up: NodeCluster) -> None:
    """Pod Security `restricted` and a ValidatingAdmissionPolicy are enforced, not only accepted."""
    kubectl = up.kubectl()
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply(
        json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}})
    )
    assert eventually(lambda: service_account(up, "strict"))
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        kubectl.apply(pod("root", namespace="strict", container={"securityContext": {"privileged": True}}))
    kubectl.apply(ADMISSION)
    forbidden = json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "forbidden", "namespace": "default"}}
    )
    assert eventually(lambda: refused(up, forbidden, "that name is taken"))


def test_the_audit_log_tells_who_wrote_what_and_never_a_secret(up: NodeCluster) -> None:
    """Each write appears with its user; bodies, and so the contents of Secrets, do not."""
    meta = {"name": "audited", "namespace": "default"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"key": "never-in-a-log"}}
    up.kubectl().apply(json.dumps(secret))
    log = LAYOUT.logs / "audit.log"
    assert eventually(lambda: "/api/v1/namespaces/default/secrets/audited" in log.read_text())
    text = log.read_text()
    entries = [json.loads(line) for line in text.splitlines() if "secrets/audited" in line]
    assert {(entry["verb"], entry["user"]["username"], entry["level"]) for entry in entries} >= {
        ("patch", "kubernetes-admin", "Metadata")
    }
    assert "never-in-a-log" not in text


def test_only_root_can_read_the_nodes_keys(up: NodeCluster) -> None:
    """State folder, keys and kubeconfigs are closed to everyone else."""
    assert stat.S_IMODE(up.layout.state.stat().st_mode) == 0o700
    secrets = [*up.layout.pki.glob("*.key"), *up.layout.config.glob("*.kubeconfig")]
    assert len(secrets) > 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_another_checkout_gets_a_kubeconfig_of_its_own(tmp_path: Path) -> None:
    """The machine's node serves every checkout; each has a kubeconfig that only its owner can read."""
    info = assistant_cluster.up("node", checkout=Checkout(tmp_path))
    assert info.kubeconfig == tmp_path / ".cluster" / "kubeconfig"
    assert stat.S_IMODE(info.kubeconfig.stat().st_mode) == 0o600
    assert info.context in info.kubeconfig.read_text()
    assert assistant_cluster.find(Checkout(tmp_path)) == info


# ---- what the tests above create and ask

ADMISSION = json.dumps(
    {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": "no-forbidden"},
                "spec": {
                    "failurePolicy": "Fail",
                    "matchConstraints": {
                        "resourceRules": [
                            {
                                "apiGroups": [""],
                                "apiVersions": ["v1"],
                                "operations": ["CREATE"],
                                "resources": ["configmaps"],
                            }
                        ]
                    },
                    "validations": [
                        {"expression": "object.metadata.name != 'forbidden'", "message": "that name is taken"}
                    ],
                },
            },
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": "no-forbidden"},
                "spec": {"policyName": "no-forbidden", "validationActions": ["Deny"]},
            },
        ],
    }
)


def policy(namespace: str) -> str:
    """A NetworkPolicy that allows nothing in."""
    meta = {"name": "deny-all", "namespace": namespace}
    spec = {"podSelector": {}, "policyTypes": ["Ingress"]}
    return json.dumps({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})


def service(namespace: str, kind: str) -> str:
    """A Service before the pods that are labelled `app=web`."""
    meta = {"name": "web", "namespace": namespace}
    spec = {"type": kind, "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})


def claim(name: str) -> str:
    """A claim on a volume of the default storage class."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    meta = {"name": name, "namespace": "default"}
    return json.dumps({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec})


def with_claim(name: str) -> dict[str, object]:
    """The parts of a pod that use a claim."""
    return {
        "container": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
    }


def phase(node: NodeCluster, volume: str) -> str:
    """Phase of a PersistentVolume."""
    return node.kubectl().run("get", "persistentvolume", volume, "--output=jsonpath={.status.phase}")


def service_account(node: NodeCluster, namespace: str) -> bool:
    """Whether a namespace has its ServiceAccount, without which pods are refused."""
    client = node.client()
    return bool(client and client.read(f"/api/v1/namespaces/{namespace}/serviceaccounts/default"))


def refused(node: NodeCluster, manifest: str, message: str) -> bool:
    """Whether the API server refuses an object with this message; an accepted one is removed again."""
    try:
        node.kubectl().apply(manifest)
    except ClusterError as error:
        return message in str(error)
    node.kubectl().run("delete", "--filename=-", stdin=manifest)
    return False


def lookup(client: dict[str, object], name: str) -> str:
    """Ask cluster DNS from a pod for a name's IPv4 address (RFC 1035, by hand: the pod has no resolver)."""
    program = f"""
        import socket, struct
        labels = b"".join(bytes([len(l)]) + l.encode() for l in "{name}".split("."))
        question = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack(">HH", 1, 1)
        link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        link.settimeout(3)
        link.sendto(question, ("{LAYOUT.dns_service_ip}", 53))
        reply = link.recv(4096)
        code, answers = reply[3] & 15, struct.unpack(">H", reply[6:8])[0]
        print(socket.inet_ntoa(reply[-4:]) if answers and not code else f"rcode {{code}}")
    """
    return python_inside(client, program)
