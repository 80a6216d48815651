"""What the node's programs are told."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from assistant_cluster import addons, upstream, volumes
from assistant_cluster.agents import Agents
from assistant_cluster.cli import main
from assistant_cluster.controlplane import ControlPlane
from assistant_cluster.errors import ClusterError
from assistant_cluster.inventory import difference
from assistant_cluster.kubeconfig import server_of
from assistant_cluster.layout import Layout
from assistant_cluster.node import remove_tree
from assistant_cluster.progress import Progress, wait_until
from assistant_cluster.sandbox import log_tail

LAYOUT = Layout()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = type("Here", (Layout,), {"state": tmp_path})()
    for folder in (layout.config, layout.logs, layout.pki):
        folder.mkdir(mode=0o700)
    return layout


@pytest.fixture
def plane(layout: Layout) -> ControlPlane:
    return ControlPlane(
        folder=layout.state,
        pki=layout.pki,
        logs=layout.logs,
        address=layout.node_ip,
        api_port=6443,
        etcd_port=2379,
        etcd_peer_port=2380,
        service_range=layout.service_range,
        api_service_ip=layout.api_service_ip,
        advertised=layout.node_ip,
    )


def flags(command: list[str]) -> dict[str, str]:
    return dict(word.removeprefix("--").split("=", 1) for word in command if "=" in word)


def test_the_api_server_keeps_kubernetes_defaults_where_users_would_notice(plane: ControlPlane) -> None:
    """No feature gate and no admission plugin is switched: what works here works on any cluster."""
    told = flags(plane.api_server(["kube-apiserver"], bind_address="127.0.0.1"))
    assert not {"feature-gates", "enable-admission-plugins", "disable-admission-plugins", "runtime-config"} & set(told)
    assert told["authorization-mode"] == "Node,RBAC"
    assert told["service-account-issuer"] == "https://kubernetes.default.svc.cluster.local"
    assert yaml.safe_load(Path(told["audit-policy-file"]).read_text())["rules"] == [{"level": "Metadata"}]


def test_etcd_talks_to_holders_of_a_certificate_only(plane: ControlPlane) -> None:
    """Pods with the node's network could otherwise read every Secret."""
    told = flags(plane.etcd(["etcd"]))
    assert told["client-cert-auth"] == "true"
    assert told["peer-client-cert-auth"] == "true"
    assert told["listen-client-urls"] == "https://127.0.0.1:2379"
    assert told["listen-peer-urls"] == "https://127.0.0.1:2380"


def test_the_kubelet_tolerates_a_machine_that_is_not_its_own(layout: Layout, plane: ControlPlane) -> None:
    """It keeps images, evicts late, leaves room for 200 pods, and answers nobody without rights."""
    told = flags(Agents(layout, plane).kubelet(["kubelet"]))
    config = yaml.safe_load(Path(told["config"]).read_text())
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["maxPods"] >= 110
    assert config["serializeImagePulls"] is False
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["clusterDNS"] == [layout.dns_service_ip]
    assert server_of(Path(told["kubeconfig"])) == "https://198.18.255.1:6443"


def corefile(servers: list[str]) -> tuple[str, list[dict[str, Any]]]:
    objects = list(yaml.safe_load_all(addons.cluster_dns(LAYOUT, "localhost/coredns:1", servers)))
    return next(o["data"]["Corefile"] for o in objects if o["kind"] == "ConfigMap"), objects


def test_cluster_dns_looks_like_any_clusters_to_network_policies() -> None:
    """Label, Service name, namespace and address are the usual ones."""
    _, objects = corefile(["192.0.2.53"])
    kinds = {item["kind"]: item for item in objects}
    assert kinds["Deployment"]["spec"]["template"]["metadata"]["labels"] == {"k8s-app": "kube-dns"}
    assert kinds["Service"]["metadata"] | {"labels": None} == {
        "name": "kube-dns",
        "namespace": "kube-system",
        "labels": None,
    }
    assert kinds["Service"]["spec"]["clusterIP"] == LAYOUT.dns_service_ip


def test_cluster_dns_asks_only_name_servers_that_answer() -> None:
    """With none, an unknown name does not exist, at once."""
    assert "forward . 192.0.2.53 {" in corefile(["192.0.2.53"])[0]
    alone = corefile([])[0]
    assert "forward" not in alone
    assert "rcode NXDOMAIN" in alone


def test_loopback_resolvers_are_passed_over(tmp_path: Path) -> None:
    """127.0.0.53 means something else inside a pod."""
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fd00::1\nnameserver\nsearch x\n"
    )
    assert upstream.configured(file) == ["192.0.2.1"]
    assert upstream.configured(tmp_path / "absent") == []


@pytest.fixture
def name_server() -> Iterator[int]:
    """A server that answers the first question with its own header."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            question, client = server.recvfrom(512)
            server.sendto(question, client)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def test_a_name_server_counts_when_it_answers(name_server: int) -> None:
    """A silent one does not."""
    assert upstream.answers("127.0.0.1", name_server)
    assert not upstream.answers("127.0.0.1", name_server, seconds=0.05)


def test_only_our_volumes_that_were_given_back_are_offered_again() -> None:
    """A bound one is in use, and a stranger's is not ours."""
    found = [
        {"metadata": {"name": name}, "status": {"phase": phase}}
        for name, phase in (
            ("local-0", "Released"),
            ("local-1", "Bound"),
            ("theirs", "Released"),
            ("local-2", "Failed"),
        )
    ]
    assert volumes.released(found) == ["local-0", "local-2"]


def test_volumes_belong_to_the_node_and_hold_nothing(layout: Layout) -> None:
    """A wiped volume is an empty folder; its object names the node by its label."""
    (layout.volumes / "local-0" / "deep").mkdir(parents=True)
    volumes.wipe(layout, "local-0")
    assert list((layout.volumes / "local-0").iterdir()) == []
    (document,) = yaml.safe_load_all(volumes.manifests(layout, ["local-0"]))
    assert document["spec"]["local"]["path"] == str(layout.volumes / "local-0")
    assert "assistant-platform" in json.dumps(document["spec"]["nodeAffinity"])


def test_a_folder_with_something_mounted_in_it_is_not_removed() -> None:
    """Removing through a mount would delete somebody's files: /proc stands for such a folder."""
    with pytest.raises(ClusterError, match="something is mounted at /proc"):
        remove_tree(Path("/proc"))


def test_differences_name_what_came_and_what_went() -> None:
    """Equal subjects are left out."""
    before = {"links": frozenset({"a", "b"}), "rules": frozenset({"x"})}
    after = {"links": frozenset({"b", "c"}), "rules": frozenset({"x"})}
    assert difference(before, after) == {"links": ["+ c", "- a"]}


def test_the_end_of_a_log_belongs_to_the_error(tmp_path: Path) -> None:
    """The reason usually stands in the last lines; an absent log adds nothing."""
    log = tmp_path / "kubelet.log"
    log.write_text("".join(f"line {number}\n" for number in range(20)))
    assert "line 19" in log_tail(log)
    assert "line 10" not in log_tail(log)
    assert log_tail(tmp_path / "absent") == ""


@pytest.mark.parametrize("content", ["", "{", "a: 1", "contexts: []\ncurrent-context: x"])
def test_a_broken_kubeconfig_has_no_server(tmp_path: Path, content: str) -> None:
    """It is told like an absent one."""
    (tmp_path / "config").write_text(content)
    assert server_of(tmp_path / "config") is None
    assert server_of(tmp_path / "absent") is None


def test_waiting_ends_with_the_result_or_the_time() -> None:
    """None and False mean `not yet`."""
    answers = iter([None, False, "done"])
    assert wait_until(lambda: next(answers), seconds=5, every=0) == "done"
    assert wait_until(lambda: None, seconds=0.01, every=0.001) is None


def test_progress_tells_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds since the start, in front of each line; nothing when quiet."""
    Progress()("API server ready")
    Progress(quiet=True)("unseen")
    assert capsys.readouterr().out == "[  0.0s] API server ready\n"


def test_the_command_line_refuses_unknown_tools(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the known ones, the exit code is 1."""
    assert main(["binaries", "docker"]) == 1
    assert "Unknown: docker. There are: kubernetes" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["up", "--mode", "minikube"]])
def test_a_wrong_command_is_answered_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, as everywhere."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m assistant_cluster" in capsys.readouterr().err
