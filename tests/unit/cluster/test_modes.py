"""Which cluster is used, and by whose choice."""

import os
from pathlib import Path

import pytest
import yaml
from cluster_programs import Programs

from assistant_cluster import current, kind, lifecycle, modes
from assistant_cluster.checkout import CONTEXT, Checkout
from assistant_cluster.errors import ClusterError
from assistant_cluster.kind import KindCluster
from assistant_cluster.progress import Progress

QUIET = Progress(quiet=True)
CONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "prod-eu",
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod.example:6443"}}],
    "users": [{"name": "me", "user": {"token": "secret"}}],
    "contexts": [{"name": "prod-eu", "context": {"cluster": "prod", "user": "me"}}],
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    for name in ("CLUSTER", "CLUSTER_CONTEXT", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    return Checkout(tmp_path)


@pytest.fixture
def kubectl(programs: Programs, tmp_path: Path) -> Programs:
    """A kubectl whose user has a production cluster as current context."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    programs.add("kubectl", f'case "$*" in *config*) cat {tmp_path}/config.yaml;; *readyz*) echo ok;; esac')
    return programs


def test_a_choice_is_taken_from_the_argument_then_the_environment(
    checkout: Checkout, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLUSTER=kind holds unless the command line says otherwise."""
    monkeypatch.setenv("CLUSTER", "kind")
    assert modes.choose(None, checkout)[0] == "kind"
    assert modes.choose("node", checkout)[0] == "node"


def test_an_unknown_choice_is_answered_with_the_known_ones(checkout: Checkout) -> None:
    """The error is the documentation."""
    with pytest.raises(ClusterError, match=r"CLUSTER=minikube is not one.*\n.*CLUSTER=node"):
        modes.choose("minikube", checkout)


def test_a_container_engine_that_answers_means_kind(checkout: Checkout, programs: Programs) -> None:
    """An installed client whose server is down does not count."""
    programs.add("docker", "exit 1")
    programs.add("podman")
    assert modes.choose(None, checkout) == ("kind", "podman answers")


def test_without_engine_and_rights_nothing_is_chosen_silently(checkout: Checkout, programs: Programs) -> None:
    """Somebody's kube context is never taken without being named."""
    programs.add("docker", "exit 1")
    programs.add("podman", "exit 1")
    if modes.can_run_node():
        assert modes.choose(None, checkout)[0] == "node"
    else:
        with pytest.raises(ClusterError, match="CLUSTER=current"):
            modes.choose(None, checkout)


def test_a_checkout_stays_with_the_cluster_it_has(checkout: Checkout, programs: Programs) -> None:
    """`make demo` after `CLUSTER=kind make cluster-up` uses that cluster, also where a node could run."""
    programs.add("docker", "exit 1")
    checkout.remember("kind", yaml.safe_dump(CONFIG))
    assert modes.choose(None, checkout)[0] == "kind"


def test_the_users_own_cluster_is_named_before_it_is_used(
    checkout: Checkout, kubectl: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    """Context and server are printed; the checkout keeps a copy under the name that every mode uses."""
    info = lifecycle.up("current", checkout=checkout, progress=Progress())
    assert "Using YOUR kube context 'prod-eu' (https://prod.example:6443)" in capsys.readouterr().out
    assert (info.mode, info.server, info.reaches_services) == ("current", "https://prod.example:6443", False)
    assert yaml.safe_load(info.kubeconfig.read_text())["current-context"] == CONTEXT
    assert info.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_another_context_can_be_named(checkout: Checkout, kubectl: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLUSTER_CONTEXT spares the user from switching."""
    monkeypatch.setenv("CLUSTER_CONTEXT", "staging")
    current.read(QUIET)
    assert "--context=staging" in kubectl.calls[0]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'connection refused' >&2; exit 1", "connection refused"),
        ("echo 'apiVersion: v1'", "no current context"),
    ],
)
def test_a_cluster_that_does_not_answer_is_an_error(
    checkout: Checkout, programs: Programs, script: str, message: str
) -> None:
    """kubectl's own words reach the user, and nothing is remembered."""
    programs.add("kubectl", script)
    with pytest.raises(ClusterError, match=message):
        lifecycle.up("current", checkout=checkout, progress=QUIET)
    assert checkout.mode is None


def test_down_leaves_the_users_own_cluster_alone(checkout: Checkout, kubectl: Programs) -> None:
    """Only the checkout's memory of it goes."""
    lifecycle.up("current", checkout=checkout, progress=QUIET)
    calls = len(kubectl.calls)
    assert "left as it is" in lifecycle.down(checkout=checkout, progress=QUIET)
    assert len(kubectl.calls) == calls
    assert not checkout.folder.exists()
    assert lifecycle.find(checkout) is None


@pytest.fixture
def engine(programs: Programs, tmp_path: Path) -> Programs:
    """Docker that answers, and kind with clusters that this test decides about."""
    programs.add("docker")
    (tmp_path / "kind.yaml").write_text(yaml.safe_dump(CONFIG | {"current-context": "kind-assistant-platform"}))
    script = f"""case "$*" in
      "get clusters") cat {tmp_path}/clusters 2>/dev/null; exit 0;;
      "get kubeconfig"*) cat {tmp_path}/kind.yaml;;
      version) echo "kind v0.30.0 go1.24";;
      create*) echo assistant-platform > {tmp_path}/clusters;;
      delete*) rm {tmp_path}/clusters;;
    esac"""
    programs.add("kind", script)
    return programs


def test_a_kind_cluster_is_made_once_used_again_and_deleted(checkout: Checkout, engine: Programs) -> None:
    """The commands of kind's documentation, with our name and the Kubernetes version that the node has, too."""
    for _ in range(2):
        assert lifecycle.up("kind", checkout=checkout, progress=QUIET).mode == "kind"
    created = [call for call in engine.calls if call.startswith("kind create")]
    assert created == [f"kind create cluster --name=assistant-platform --image={kind.NODE_IMAGE} --wait=180s"]
    assert lifecycle.down(checkout=checkout, progress=QUIET) == "The kind cluster is deleted."
    assert not KindCluster(QUIET).exists


def test_kind_never_touches_the_users_kubeconfig(engine: Programs, tmp_path: Path) -> None:
    """kind writes into KUBECONFIG when it creates or deletes a cluster."""
    engine.add("kind", f'echo "$KUBECONFIG" >> {tmp_path}/seen; [ "$1" = version ] && echo v0.30.0; exit 0')
    KindCluster(QUIET).load_image("localhost/x:1")
    assert set((tmp_path / "seen").read_text().split()) <= {os.devnull, os.environ.get("KUBECONFIG", "")}
    assert os.devnull in (tmp_path / "seen").read_text()


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_images_reach_kind_by_an_archive_of_either_engine(programs: Programs, tmp_path: Path, name: str) -> None:
    """`kind load docker-image` would ask Docker even where Podman is used; what the node has is not sent again."""
    (tmp_path / "images").write_text("localhost/assistant-platform/there:1\n")
    other = {"docker": "podman", "podman": "docker"}[name]
    programs.add(other, "exit 1")
    programs.add(name, f"""case "$*" in exec*) cat {tmp_path}/images;; save*) echo archive > "$3";; esac""")
    script = f"""case "$*" in
      version) echo "kind v0.30.0";;
      load*) cat "$3" > {tmp_path}/loaded; echo "$KIND_EXPERIMENTAL_PROVIDER" >> {tmp_path}/loaded;;
    esac"""
    programs.add("kind", script)
    cluster = KindCluster(QUIET)
    cluster.load_image("localhost/assistant-platform/there:1")
    assert not (tmp_path / "loaded").exists()
    cluster.load_image("localhost/assistant-platform/new:1")
    assert (tmp_path / "loaded").read_text().split() == ["archive", *(["podman"] if name == "podman" else [])]
    saved = [call.split()[-1] for call in programs.calls if call.startswith(f"{name} save")]
    assert saved == ["localhost/assistant-platform/new:1"]


def test_kinds_error_reaches_the_user(engine: Programs) -> None:
    """Whatever kind says is the reason."""
    engine.add("kind", '[ "$1" = version ] && echo v0.30.0 && exit 0; echo "no space left" >&2; exit 1')
    with pytest.raises(ClusterError, match="no space left"):
        KindCluster(QUIET).up()
