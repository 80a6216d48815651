"""Builds images on a machine without Docker, with buildah in a store of its own, and hands them to the node.

The same Dockerfiles as with Docker; only the base image differs, which is made by debootstrap because no registry can
be relied on. Instructions run in a chroot: no daemon and no nested containers are needed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp

from assistant_cluster.binaries import cache_folder
from assistant_cluster.errors import ClusterError
from assistant_cluster.images.base import SCRIPT, Recipe, certificates, recipe
from assistant_cluster.images.build_secrets import PROXIES, proxy_options, secret_options
from assistant_cluster.images.command import run
from assistant_cluster.images.export import MANIFEST, blobs, import_image, present_blobs, share_blobs
from assistant_cluster.images.parts import Part
from assistant_cluster.packages import IMAGES as PACKAGES
from assistant_cluster.packages import ensure_packages
from assistant_cluster.progress import Progress
from assistant_cluster.runtime import ContainerRuntime

RUN_FOLDER = Path("/run/assistant-platform-images")  # what is mounted: must not outlive a restart of the machine
BASE_SECONDS = 1200
BUILD_SECONDS = 1200
PUSH_SECONDS = 600
QUICK_SECONDS = 60
# A build ends with the process that wanted it, however that ended: two must not work on the store at once. And its
# mounts end with it: the storage drivers leave one behind for their folder.
TOGETHER = ["setpriv", "--pdeathsig=KILL", "--", "unshare", "--mount", "--"]
# Everything is built here: nothing needs a signature, and the machine's own policy must not matter.
POLICY = {"default": [{"type": "insecureAcceptAnything"}]}


class Buildah:
    """A store of images, and what can be done with it. Use inside `with`: one process at a time has it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._folder = cache_folder().parent / "images"
        self._policy = self._folder / "policy.json"
        self._scratch = self._folder / "tmp"
        self._run_folder = RUN_FOLDER / hashlib.sha256(str(self._folder).encode()).hexdigest()[:8]
        self._recipe: Recipe | None = None
        self._driver = ""

    @property
    def recipe(self) -> Recipe:
        """The base image's recipe."""
        self._recipe = self._recipe or recipe()
        return self._recipe

    @contextlib.contextmanager
    def exclusive(self) -> Iterator["Buildah"]:
        """Take the store, and clean up after a run that was killed."""
        if os.geteuid() != 0:
            raise ClusterError("Without Docker, images are built by root. Run it as root, or install Docker and kind.")
        ensure_packages(PACKAGES, self._progress, purpose="building images")
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._progress("Another process is building images, waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch.mkdir(mode=0o700)
            self._policy.write_text(json.dumps(POLICY))
            self._driver = self._storage_driver()
            if self._run("containers", "--quiet", seconds=QUICK_SECONDS).strip():
                self._run("rm", "--all", seconds=QUICK_SECONDS)
            yield self

    def images(self) -> set[str]:
        """References in the store."""
        lines = self._run("images", "--format", "{{.Name}}:{{.Tag}}", seconds=QUICK_SECONDS)
        return set(lines.split())

    def build(self, part: Part, reference: str) -> None:
        """Build one image, and before it, the first time, the base image."""
        self._ensure_base()
        self._run(
            *("build", "--isolation", "chroot", "--layers", "--format", "oci", "--pull=never"),
            *("--signature-policy", str(self._policy), "--build-arg", f"BASE={self.recipe.reference}"),
            *proxy_options(),
            *secret_options(self._scratch),
            *("--ignorefile", str(part.context / ".dockerignore")) if (part.context / ".dockerignore").exists() else (),
            *("--tag", reference, "--file", str(part.dockerfile), str(part.context)),
            seconds=BUILD_SECONDS,
            log=self._folder / f"{part.name}.log",
        )

    def hand_over(self, references: list[str], node: ContainerRuntime) -> int:
        """Put images into the node, of which it lacks some layers; returns the bytes of those.

        While one is imported, the next is got ready.
        """
        present = present_blobs(node)

        def import_from(reference: str, folder: Path) -> int:
            try:
                sent = import_image(reference, folder, node, present)
            except ClusterError:
                shutil.rmtree(folder, ignore_errors=True)  # it may be damaged: the next run writes it again
                raise
            present.update(blobs(folder))
            return sent

        with ThreadPoolExecutor(max_workers=1) as importer:
            imports = [importer.submit(import_from, each, self.exported(each)) for each in references]
            return sum(each.result() for each in imports)

    def exported(self, reference: str) -> Path:
        """Return an image as files, without compression: written once, kept until the part's next image is.

        A new node lacks every image, and to write them out of the store takes 4 s of a processor each.
        """
        kept = self._folder / "exported"
        name, tag = reference.rsplit("/", 1)[-1].split(":")
        folder = kept / f"{name}-{tag}"
        if (folder / MANIFEST).exists():
            return folder
        kept.mkdir(exist_ok=True)
        new = Path(mkdtemp(dir=self._scratch))
        self._run(
            *("push", "--quiet", "--disable-compression", "--signature-policy", str(self._policy)),
            *("--format", "oci", reference, f"dir:{new}"),
            seconds=PUSH_SECONDS,
        )
        for older in kept.glob(f"{name}-{'[0-9a-f]' * len(tag)}"):
            shutil.rmtree(older)
        share_blobs(new, kept)
        new.rename(folder)
        return folder

    def remove_all(self) -> None:
        """Delete the store and everything in it."""
        self._run("rm", "--all", seconds=QUICK_SECONDS)
        self._run("rmi", "--all", "--force", seconds=BUILD_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._run_folder, ignore_errors=True)

    def _ensure_base(self) -> None:
        if self.recipe.reference in self.images():
            return
        self._progress(f"Making the base image from {self.recipe.codename} packages (about a minute, once)")
        settings = {**self.recipe.environment(), "BUILDAH": " ".join(self._command()), "POLICY": str(self._policy)}
        if bundle := certificates():
            settings["CERTIFICATES"] = str(bundle)
        run(
            [*TOGETHER, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", str(SCRIPT)],
            seconds=BASE_SECONDS,
            log=self._folder / "base.log",
            environment={**self._environment(), **settings},
        )

    def _storage_driver(self) -> str:
        """overlay where the kernel can mount it on this file system; vfs copies every layer, and works everywhere."""
        trial = Path(mkdtemp(dir=self._scratch))
        for name in ("lower", "upper", "work", "merged"):
            (trial / name).mkdir()
        options = f"lowerdir={trial}/lower,upperdir={trial}/upper,workdir={trial}/work"
        mount = ["mount", "-t", "overlay", "-o", options, "overlay", str(trial / "merged")]
        try:
            run(["unshare", "--mount", *mount], seconds=QUICK_SECONDS)
        except ClusterError:
            return "vfs"
        finally:
            shutil.rmtree(trial, ignore_errors=True)
        return "overlay"

    def _command(self) -> list[str]:
        storage = self._folder / "storage"
        return ["buildah", "--root", str(storage), "--runroot", str(self._run_folder), "--storage-driver", self._driver]

    def _run(self, *arguments: str, seconds: float, log: Path | None = None) -> str:
        return run([*TOGETHER, *self._command(), *arguments], seconds=seconds, log=log, environment=self._environment())

    def _environment(self) -> dict[str, str]:
        """A short list instead of the caller's environment: no token of the shell gets near a build."""
        kept = {name: os.environ[name] for name in ("PATH", *PROXIES) if name in os.environ}
        kept["PATH"] = os.pathsep.join([kept.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        return {**kept, "HOME": str(self._folder), "TMPDIR": str(self._scratch), "LANG": "C.UTF-8"}
