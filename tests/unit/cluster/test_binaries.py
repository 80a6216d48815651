"""Where programs come from, in order."""

import dataclasses
import fcntl
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from cluster_programs import Programs

from assistant_cluster import addons, binaries, gobuild
from assistant_cluster.errors import ClusterError
from assistant_cluster.layout import Layout
from assistant_cluster.progress import Progress
from assistant_cluster.tools import ROOM, TOOLS, Download

QUIET = Progress(quiet=True)
KUBERNETES = TOOLS["kubernetes"]
NOWHERE = Download("http://127.0.0.1:1/{program}", "http://127.0.0.1:1/{program}.sha256")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs) -> Path:
    """An empty cache, no KUBEBUILDER_ASSETS, and publishers that cannot be reached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    for name, tool in TOOLS.items():
        monkeypatch.setitem(TOOLS, name, dataclasses.replace(tool, download=NOWHERE, package=None))
    programs.add("go", "exit 1")
    return tmp_path / "cache" / "assistant-platform" / "bin"


def runnable(file: Path, script: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def kubernetes_in(folder: Path, version: str = KUBERNETES.version) -> None:
    for program in KUBERNETES.programs:
        runnable(folder / program, f"echo Kubernetes {version}")


def test_kubebuilder_assets_come_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field's usual variable wins over PATH and cache."""
    kubernetes_in(tmp_path / "assets")
    kubernetes_in(tmp_path / "path")
    runnable(cache / KUBERNETES.key / "kube")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    found = binaries.ensure("kubernetes", QUIET)
    assert found.source == "KUBEBUILDER_ASSETS"
    assert found.command("kubelet") == [str(tmp_path / "assets" / "kubelet")]


def test_programs_of_another_version_are_passed_over_with_a_note(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kubelet of another version would be found by accident and fail later: the cache's are used."""
    kubernetes_in(tmp_path / "path", "v1.30.1")
    runnable(cache / KUBERNETES.key / "kube")
    found = binaries.ensure("kubernetes", Progress())
    assert "PATH: has version v1.30.1" in capsys.readouterr().out
    assert found.source == "cache"
    assert found.command("kubelet")[-1] == "kubelet"


def test_any_version_of_etcd_on_the_path_will_do(cache: Path, tmp_path: Path) -> None:
    """Debian's is older than ours, and the API server needs little of it."""
    runnable(tmp_path / "path" / "etcd", "echo etcd Version: 3.4.23")
    assert binaries.ensure("etcd", QUIET).source == "PATH"


def test_another_patch_of_kubernetes_will_do(cache: Path, tmp_path: Path) -> None:
    """What works with v1.34.4 works with v1.34.1, which saves a build of nine minutes."""
    kubernetes_in(tmp_path / "path", KUBERNETES.version.rpartition(".")[0] + ".1")
    assert binaries.ensure("kubernetes", QUIET).source == "PATH"


def test_a_part_of_kubernetes_is_enough_for_those_who_need_no_more(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """envtest installs API server and kubectl only."""
    for program in ("kube-apiserver", "kubectl"):
        runnable(tmp_path / "assets" / program, f"echo Kubernetes {KUBERNETES.version}")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    found = binaries.ensure("kubernetes", QUIET, programs=("kube-apiserver", "kubectl"))
    assert found.source == "KUBEBUILDER_ASSETS"
    runnable(cache / KUBERNETES.key / "kube")
    assert binaries.ensure("kubernetes", QUIET).source == "cache"


def test_single_programs_in_the_cache_are_as_good_as_the_combined_one(cache: Path) -> None:
    """Downloads are single files, builds one file for all."""
    folder = cache / KUBERNETES.key
    kubernetes_in(folder)
    assert binaries.ensure("kubernetes", QUIET).command("kubectl") == [str(folder / "kubectl")]


def test_a_build_fills_the_cache_and_is_not_repeated(cache: Path, programs: Programs) -> None:
    """What Go wrote is found in the cache the next time."""
    programs.add("go", 'echo program > "$GOBIN/helm"; chmod 755 "$GOBIN/helm"')
    assert binaries.ensure("helm", QUIET).command() == [str(cache / TOOLS["helm"].key / "helm")]
    assert binaries.ensure("helm", QUIET).source == "cache"
    assert len(programs.calls) == 1


def test_a_tool_that_cannot_be_had_says_all_that_was_tried(cache: Path, programs: Programs) -> None:
    """The error lists each place in order, with its reason, and nothing half done stays in the cache."""
    programs.add("go", "echo broken > $GOBIN/half; echo no such module; exit 1")
    with pytest.raises(ClusterError) as error:
        binaries.ensure("helm", QUIET)
    text = str(error.value)
    parts = [
        "KUBEBUILDER_ASSETS and PATH",
        "cache: nothing in",
        "download: http",
        "build with Go: go failed: no such module",
    ]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)
    assert [entry.name for entry in cache.iterdir() if not entry.name.endswith(".lock")] == []


def test_what_a_killed_build_left_is_removed(cache: Path, programs: Programs) -> None:
    """Half-filled folders of dead processes do not pile up."""
    (cache / ".helm-abandoned").mkdir(parents=True)
    programs.add("go", 'echo program > "$GOBIN/helm"; chmod 755 "$GOBIN/helm"')
    binaries.ensure("helm", QUIET)
    assert not (cache / ".helm-abandoned").exists()


def test_two_processes_build_a_tool_once(cache: Path, programs: Programs) -> None:
    """Whoever comes second waits and then finds it in the cache."""
    cache.mkdir(parents=True)
    with (cache / ".helm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found: list[binaries.Programs] = []
        second = threading.Thread(target=lambda: found.append(binaries.ensure("helm", QUIET)))
        second.start()
        second.join(timeout=0.3)
        assert second.is_alive()
        runnable(cache / TOOLS["helm"].key / "helm")
        fcntl.flock(lock, fcntl.LOCK_UN)
        second.join(timeout=5)
    assert [programs_.source for programs_ in found] == ["cache"]
    assert programs.calls == []


def test_without_go_a_build_says_where_to_get_it(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next step is part of the message."""
    if Path("/usr/local/go/bin/go").exists():
        pytest.skip("Go is installed where it is always looked for")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(gobuild.BuildError, match=re.escape("https://go.dev/doc/install")):
        gobuild.build(TOOLS["helm"], tmp_path, QUIET)


def test_builds_are_static_reproducible_and_know_their_version(tmp_path: Path) -> None:
    """Without its version the API server would call itself v0.0.0."""
    command = gobuild.command("go", KUBERNETES, tmp_path)
    assert command[:4] == ["go", "build", "-mod=readonly", "-trimpath"]
    flags = command[command.index("-ldflags") + 1]
    assert f"-X k8s.io/component-base/version.gitVersion={KUBERNETES.version}" in flags
    assert command[-2:] == [str(tmp_path / "kube"), "."]
    assert gobuild.environment(KUBERNETES.build, tmp_path)["CGO_ENABLED"] == "0"
    assert gobuild.command("go", TOOLS["helm"], tmp_path)[-1] == f"helm.sh/helm/v4/cmd/helm@{TOOLS['helm'].version}"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("kubernetes", "k8s.io/kubernetes"),
        ("coredns", "github.com/coredns/coredns"),
        ("kube-router", "github.com/cloudnativelabs/kube-router/v2"),
        ("etcd", "go.etcd.io/etcd/server/v3"),
    ],
)
def test_our_go_modules_require_the_versions_of_the_table(name: str, module: str) -> None:
    """A version that is changed in one place only would build something else than it says."""
    folder = TOOLS[name].build.folder
    assert folder is not None
    text = (folder / "go.mod").read_text()
    assert re.search(rf"^\s*(?:require )?{re.escape(module)} {re.escape(TOOLS[name].version)}$", text, re.MULTILINE)
    assert f"{module} {TOOLS[name].version} h1:" in (folder / "go.sum").read_text()


@pytest.mark.parametrize("change", ["go.mod", "go.sum", "policy/main.go", "new file", "variables", "package"])
def test_another_recipe_is_another_place_in_the_cache(change: str, tmp_path: Path) -> None:
    """A program that another recipe built of the same version is not taken for this one's."""
    folder = Path(shutil.copytree(ROOM / "addons", tmp_path / "addons"))
    tool = dataclasses.replace(
        TOOLS["kube-router"], build=dataclasses.replace(TOOLS["kube-router"].build, folder=folder)
    )
    before = tool.key
    assert before == TOOLS["kube-router"].key
    assert re.fullmatch(rf"kube-router-{re.escape(tool.version)}-[0-9a-f]{{8}}", before)
    if change in {"variables", "package"}:
        changed = {"variables": {"a.B": "1"}} if change == "variables" else {"package": "./coredns"}
        tool = dataclasses.replace(tool, build=dataclasses.replace(tool.build, **changed))
    else:
        file = folder / ("policy/other.go" if change == "new file" else change)
        file.write_text((file.read_text() if file.exists() else "package main") + "\n")
    assert tool.key != before
    assert TOOLS["helm"].key == f"helm-{TOOLS['helm'].version}"


def test_cluster_dns_has_the_plugins_of_its_configuration_and_no_others() -> None:
    """One that is missing would be refused when cluster DNS starts; one too many is compiled for nothing."""
    built = set(
        re.findall(r'_ "github.com/coredns/coredns/plugin/(\w+)"', (ROOM / "addons/coredns/main.go").read_text())
    )
    named: set[str] = set()
    for servers in (["192.0.2.1"], []):
        (config,) = (
            document
            for document in yaml.safe_load_all(addons.cluster_dns(Layout(), "coredns:1", servers))
            if document["kind"] == "ConfigMap"
        )
        named |= set(re.findall(r"^    (\w+)", config["data"]["Corefile"], re.MULTILINE))
    assert built == named


def test_a_command_can_be_changed_without_changing_the_next_one(cache: Path) -> None:
    """Callers extend command lines in place."""
    runnable(cache / TOOLS["helm"].key / "helm")
    programs = binaries.find("helm")
    assert programs is not None
    programs.command().append("install")
    assert len(programs.command()) == 1
    assert os.access(programs.command()[0], os.X_OK)


def test_compilers_collect_garbage_only_near_their_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shares of all processors together are half of the memory, and what the caller has set stays."""
    monkeypatch.delenv("GOGC", raising=False)
    monkeypatch.delenv("GOMEMLIMIT", raising=False)
    found = gobuild.environment(KUBERNETES.build, Path())
    assert found["GOGC"] == "off"
    assert found["GOMEMLIMIT"] == f"{gobuild.compiler_memory_mib()}MiB"
    monkeypatch.setenv("GOGC", "50")
    assert gobuild.environment(KUBERNETES.build, Path())["GOGC"] == "50"
