"""What images are made of, when they are built again, and what the builders are told."""

import hashlib
import json
import re
import stat
import tarfile
from pathlib import Path

import pytest
from cluster_programs import Programs

from assistant_cluster import images
from assistant_cluster.errors import ClusterError
from assistant_cluster.images import base, build_secrets, export, parts
from assistant_cluster.images.buildah import Buildah
from assistant_cluster.images.command import run
from assistant_cluster.images.parts import Part
from assistant_cluster.progress import Progress
from assistant_cluster.runtime import ContainerRuntime

DOCKERFILES = [Part(name, parts.ROOT / folder / "Dockerfile") for name, folder in parts.PLATFORM.items()]
TARGETS = """\
http://mirror.example/debian/ bookworm main Debian
http://mirror.example/debian/ bookworm-updates main Debian
http://mirror.example/debian-security/ bookworm-security main Debian
http://mirror.example/debian/ bookworm contrib Debian
http://mirror.example/debian/ trixie main Debian
https://vendor.example/apt bookworm main Some Vendor
"""


@pytest.fixture
def part(tmp_path: Path) -> Part:
    """A part of two copied things: a folder and a file."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("x = 1\n")
    (tmp_path / "lock.txt").write_text("a==1\n")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY package /app\nCOPY --chown=1 \\\n  lock.txt /lock\n")
    return Part("trial", tmp_path / "Dockerfile", tmp_path)


def test_copied_paths_are_those_of_the_context_alone() -> None:
    """COPY instructions count with all their sources, over several lines, but not copies from another stage."""
    text = "COPY a b \\\n    c /to/\nRUN echo COPY x y\nCOPY --from=tools /bin/t /bin/t\nCOPY --chmod=755 d /to\n"
    assert list(parts.copied(text)) == ["a", "b", "c", "d"]


def test_the_tag_stays_while_nothing_changes(part: Part) -> None:
    """The same inputs give the same tag, also when Python left its caches among them."""
    before = part.tag("base")
    cache = part.context / "package" / "__pycache__"
    cache.mkdir()
    (cache / "module.cpython-311.pyc").write_bytes(b"\0")
    (part.context / "not-copied.txt").write_text("x")
    assert part.tag("base") == before
    assert re.fullmatch("[0-9a-f]{12}", before)


@pytest.mark.parametrize("change", ["content", "name", "mode", "new file", "lock", "Dockerfile", "base"])
def test_the_tag_changes_with_every_input(part: Part, change: str) -> None:
    """Content, name and executable bit of each file count, and so do the Dockerfile and the base image."""
    before = part.tag("base")
    module = part.context / "package" / "module.py"
    changes = {
        "content": lambda: module.write_text("x = 2\n"),
        "name": lambda: module.rename(module.with_name("other.py")),
        "mode": lambda: module.chmod(0o755),
        "new file": lambda: module.with_name("second.py").write_text(""),
        "lock": lambda: (part.context / "lock.txt").write_text("a==2\n"),
        "Dockerfile": lambda: part.dockerfile.write_text(part.dockerfile.read_text() + "USER 1\n"),
        "base": lambda: None,
    }
    changes[change]()
    assert part.tag("other base" if change == "base" else "base") != before


def test_a_dockerfile_that_copies_what_is_not_there_is_told(part: Part) -> None:
    """The error names the Dockerfile and the path, before any builder starts."""
    (part.context / "lock.txt").unlink()
    with pytest.raises(ClusterError, match=r"copies lock\.txt, and there is no such file"):
        part.tag("base")


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    """A slip of the pen on the command line gets the list to choose from."""
    with pytest.raises(ClusterError, match="Parts are: operator, gateway, api, demo, postgres, redis, weaviate"):
        parts.part("operatr", Progress(quiet=True))


@pytest.mark.parametrize("part", DOCKERFILES, ids=lambda part: part.name)
def test_an_image_holds_its_own_package_and_no_other_parts(part: Part) -> None:
    """A part's image has its package, what both sides share, and its own lock; the operator migrations as data too."""
    packages = {name for name in parts.copied(part.dockerfile.read_text()) if "/assistant_" in name}
    own = {name for name in packages if name.startswith(f"{parts.PLATFORM[part.name]}/")}
    shared = {"crds/assistant_crds", "observability/assistant_observability"}
    if part.name in {"gateway", "api"}:
        shared.add("http/assistant_http")
    migrations = {"api/assistant_api/database/migrations", "gateway/assistant_gateway/ledger/migrations"}
    data = migrations if part.name == "operator" else set()
    assert own
    assert packages - own - shared == data
    assert part.context / "requirements" / f"{part.name}.txt" in part.inputs()


@pytest.mark.parametrize("part", DOCKERFILES, ids=lambda part: part.name)
def test_an_image_runs_as_nobody_in_particular_from_pinned_packages(part: Part) -> None:
    """User 10001, hashes for every package, and nothing of the build machine in an ENV or ARG."""
    text = part.dockerfile.read_text()
    assert text.splitlines()[-1].startswith("CMD ")
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["10001:10001"]
    assert text.count("--require-hashes") == text.count("pip install") >= 2
    kept = re.findall(r"^(?:ENV|ARG) .*$", text.replace("\\\n", " "), re.MULTILINE)
    assert not [line for line in kept if re.search("index|proxy|cert|token", line, re.IGNORECASE)]


def test_the_base_image_comes_from_the_sources_of_this_machine() -> None:
    """The release itself, its updates and security updates count; other releases, areas and vendors do not."""
    recipe = base.from_targets(TARGETS, "debian", "bookworm")
    assert recipe.mirror == "http://mirror.example/debian/"
    assert recipe.sources == (
        "deb http://mirror.example/debian/ bookworm main",
        "deb http://mirror.example/debian-security/ bookworm-security main",
        "deb http://mirror.example/debian/ bookworm-updates main",
    )


def test_the_base_image_is_the_same_whatever_the_mirror() -> None:
    """Another mirror is no reason to build everything again; another release is."""
    here = base.from_targets(TARGETS, "debian", "bookworm")
    there = base.from_targets(TARGETS.replace("mirror", "elsewhere"), "debian", "bookworm")
    newer = base.from_targets(TARGETS, "debian", "trixie")
    assert here.identity == there.identity != newer.identity


def test_a_machine_without_sources_of_its_release_is_told_so() -> None:
    """There is nothing to make a base image from."""
    with pytest.raises(ClusterError, match="no package source for debian forky"):
        base.from_targets(TARGETS, "debian", "forky")


def test_the_package_index_reaches_a_build_as_a_secret_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index address may hold a password: it is in files for the owner alone and in no argument."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:word@index.example/simple")
    options = build_secrets.secret_options(tmp_path)
    assert "word" not in " ".join(options)
    for name in ("pip.conf", "uv.toml"):
        assert "user:word@index.example" in (tmp_path / name).read_text()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert f"id=uv,src={tmp_path}/uv.toml" in options


@pytest.fixture
def pushed(tmp_path: Path) -> Path:
    """An image as `buildah push dir:` leaves it, with one layer that occurs twice."""
    folder = tmp_path / "pushed"
    folder.mkdir()
    for name, content in {"aa": b"12345", "bb": b"123", "cc": b"{}"}.items():
        (folder / name).write_bytes(content)
    layers = [{"digest": f"sha256:{name}"} for name in ("aa", "bb", "aa")]
    manifest = {"mediaType": "application/x", "config": {"digest": "sha256:cc"}, "layers": layers}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_an_archive_leaves_out_the_layers_that_the_node_has(tmp_path: Path, pushed: Path) -> None:
    """Index, layout and manifest are always there; blobs only when they are not to be skipped, and each once."""
    with (tmp_path / "archive.tar").open("wb") as stream:
        size = export.write_archive("localhost/x:1", pushed, stream, {"sha256:aa"})
    digest = hashlib.sha256((pushed / "manifest.json").read_bytes()).hexdigest()
    with tarfile.open(tmp_path / "archive.tar") as archive:
        names = archive.getnames()
        index = json.load(archive.extractfile("index.json") or pytest.fail("no index"))
    assert names == ["oci-layout", "index.json", f"blobs/sha256/{digest}", "blobs/sha256/cc", "blobs/sha256/bb"]
    assert size == 5
    assert index["manifests"][0]["digest"] == f"sha256:{digest}"
    assert index["manifests"][0]["annotations"] == {"io.containerd.image.name": "localhost/x:1"}


def test_layers_that_were_collected_meanwhile_are_sent_after_all(
    tmp_path: Path, pushed: Path, programs: Programs
) -> None:
    """containerd refuses an archive with a gap that it cannot fill; the second one has none."""
    programs.add(
        "ctr",
        f"""cat > {tmp_path}/archive.tar
        tar tf {tmp_path}/archive.tar | grep -q sha256/aa || {{ echo "sha256:aa: not found" >&2; exit 1; }}""",
    )
    node = ContainerRuntime(tmp_path / "socket")
    assert export.import_image("localhost/x:1", pushed, node, {"sha256:aa"}) == 10
    assert len(programs.calls) == 2


def test_an_import_that_fails_or_hangs_is_said_so(tmp_path: Path, pushed: Path, programs: Programs) -> None:
    """What containerd says is the reason, also when it stops reading before all is written."""
    node = ContainerRuntime(tmp_path / "socket")
    large = b"x" * 2**20
    programs.add("ctr", 'echo "no space left on device" >&2; exit 1')
    with pytest.raises(ClusterError, match="no space left"):
        node.import_stream(lambda stream: stream.writelines([large] * 8), seconds=30)
    programs.add("ctr", "exec sleep 60")
    with pytest.raises(ClusterError, match="exit code -9"):
        node.import_stream(lambda stream: None, seconds=0.2)


def test_a_failed_command_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """Whoever builds sees the reason at once and where the rest is."""
    log = tmp_path / "log"
    with pytest.raises(ClusterError, match=r"failed. Its log .*log ends with:\n  no such package"):
        run(["sh", "-c", "echo no such package; exit 3"], seconds=5, log=log)
    assert log.read_text() == "no such package\n"


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    """Every command has a time limit, and what it printed until then is kept."""
    with pytest.raises(ClusterError, match=r"took longer than .*\n  begun"):
        run(["sh", "-c", "echo begun; exec sleep 30"], seconds=0.5, log=tmp_path / "log")


def test_a_missing_builder_is_named() -> None:
    """Not a traceback of a missing file."""
    with pytest.raises(ClusterError, match="no-such-builder is not installed"):
        run(["no-such-builder"], seconds=5)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` on the PATH that answers and writes down what it is asked for; it has no image."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n[ "$1 $2" != "image inspect" ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return calls


def test_a_cluster_of_ones_own_needs_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can load images into a foreign cluster: the error tells what to set."""
    monkeypatch.delenv("IMAGE_REGISTRY", raising=False)
    with pytest.raises(ClusterError, match=r"IMAGE_REGISTRY=registry\.example/folder"):
        images.build_and_load(["gateway"], mode="current", progress=Progress(quiet=True))


def test_images_for_a_cluster_of_ones_own_are_built_and_pushed(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker builds each part under the registry's name and pushes it; the stores are public images there."""
    monkeypatch.setenv("IMAGE_REGISTRY", "registry.example/team/")
    found = images.build_and_load(["gateway", "redis"], mode="current", progress=Progress(quiet=True))
    assert list(found) == ["gateway"]
    assert re.fullmatch(r"registry\.example/team/gateway:[0-9a-f]{12}", found["gateway"])
    calls = docker.read_text().splitlines()
    build = next(line for line in calls if line.startswith("build "))
    assert f"--tag {found['gateway']} --file {parts.ROOT}/gateway/Dockerfile" in build
    assert build.endswith(f" {parts.ROOT}")
    assert calls[-1] == f"push {found['gateway']}"


def test_the_dockerignore_agrees_with_what_counts_as_input() -> None:
    """What never changes a tag must not get into an image either."""
    ignored = (parts.ROOT / ".dockerignore").read_text().split()
    assert {"**/__pycache__", "**/*.pyc"} <= set(ignored)
    assert json.dumps(ignored).count("assistant_") == 0


class Store(Buildah):
    """A store whose images have a layer of their own and one that all share."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Progress(quiet=True))
        self._folder = folder
        self._scratch = folder / "tmp"
        self._scratch.mkdir()
        self.written: list[str] = []

    def _run(self, *arguments: str, seconds: float, log: Path | None = None) -> str:
        *_, reference, target = arguments
        self.written.append(reference)
        folder = Path(target.removeprefix("dir:"))
        layers = [f"layer of {reference}".encode(), b"base"]
        for layer in layers:
            (folder / hashlib.sha256(layer).hexdigest()).write_bytes(layer)
        described = [{"digest": f"sha256:{hashlib.sha256(layer).hexdigest()}"} for layer in layers]
        (folder / "manifest.json").write_text(json.dumps({"config": described[0], "layers": described}))
        return ""


def test_an_image_is_written_out_once(tmp_path: Path) -> None:
    """A new node gets the files of the last one: of each part the newest, and what images share once."""
    store = Store(tmp_path)
    one, api, two = (
        f"localhost/x/{name}" for name in ("gateway:0123456789ab", "api:0123456789ab", "gateway:ba9876543210")
    )
    first = store.exported(one)
    assert store.exported(one) == first
    assert store.written == [one]
    base = hashlib.sha256(b"base").hexdigest()
    assert (first / base).samefile(store.exported(api) / base)
    second = store.exported(two)
    assert not first.exists()
    assert (second / base).read_bytes() == b"base"
    assert store.written == [one, api, two]


def test_what_the_node_refuses_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that the disk damaged would stop every later run."""
    store = Store(tmp_path)
    reference = "localhost/x/gateway:0123456789ab"

    def refuse(*_: object) -> int:
        raise ClusterError("digest")

    monkeypatch.setattr("assistant_cluster.images.buildah.present_blobs", lambda _: set())
    monkeypatch.setattr("assistant_cluster.images.buildah.import_image", refuse)
    with pytest.raises(ClusterError, match="digest"):
        store.hand_over([reference], ContainerRuntime(tmp_path / "socket"))
    store.exported(reference)
    assert store.written == [reference, reference]
