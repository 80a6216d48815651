"""The platform's images: built where something they are made from changed, and put where the cluster finds them.

Built with buildah on a machine whose cluster is our own node, with Docker or Podman otherwise (decision 0004). On the
node the stores are built as well; elsewhere the chart takes public images of them.
"""

import os
from collections.abc import Iterable

from assistant_cluster import modes
from assistant_cluster.checkout import Checkout
from assistant_cluster.errors import ClusterError
from assistant_cluster.images import docker
from assistant_cluster.images.buildah import Buildah
from assistant_cluster.images.docker import Docker
from assistant_cluster.images.parts import PLATFORM, STORES, Part, part
from assistant_cluster.progress import Progress
from assistant_cluster.runtime import IMAGE_PREFIX, ContainerRuntime, runtime

REGISTRY = "IMAGE_REGISTRY"

__all__ = ["PLATFORM", "STORES", "build_and_load"]


def build_and_load(
    parts: Iterable[str] | None = None,
    *,
    load: bool = True,
    mode: str | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Build what is not built, load what the cluster lacks; returns the image reference of each part.

    `parts` None means all that the cluster needs: on our own node the stores too. Store images are left out of the
    answer where the chart's public ones are used. `mode` is `node`, `kind` or `current`; None: the checkout's.
    """
    progress = progress or Progress()
    chosen, _ = modes.choose(mode, Checkout())
    wanted = tuple(parts) if parts is not None else (*PLATFORM, *STORES)
    if chosen == "node":
        return _for_node([part(name, progress) for name in wanted], runtime() if load else None, progress)
    described = [part(name, progress) for name in wanted if name not in STORES]
    return _with_docker(described, chosen, progress, load=load)


def _for_node(parts: list[Part], node: ContainerRuntime | None, progress: Progress) -> dict[str, str]:
    if node and not node.answers:
        raise ClusterError("The node is not running: `make cluster-up` starts it.")
    buildah = Buildah(progress)
    base = buildah.recipe.identity
    references = {each.name: each.reference(base) for each in parts}
    present = node.images() if node else set()
    missing = [each for each in parts if references[each.name] not in present]
    if not missing:
        progress("All there")
        return references
    with buildah.exclusive():
        built = buildah.images()
        for each in missing:
            if references[each.name] not in built:
                progress(f"{each.name}: building {references[each.name]}")
                buildah.build(each, references[each.name])
        if node:
            progress(f"loading into the node: {', '.join(each.name for each in missing)}")
            sent = buildah.hand_over([references[each.name] for each in missing], node)
            progress(f"loaded {len(missing)} images ({sent / 1e6:.1f} MB that the node did not have)")
    return references


def _with_docker(parts: list[Part], mode: str, progress: Progress, *, load: bool) -> dict[str, str]:
    prefix = IMAGE_PREFIX
    if mode == "current":
        prefix = os.environ.get(REGISTRY, "")
        if not prefix:
            raise ClusterError(
                f"Your own cluster fetches images from a registry. Say which: {REGISTRY}=registry.example/folder"
                " (you must be logged in there with `docker login`)."
            )
    engine = Docker(progress)
    references = {each.name: each.reference(docker.BASE, prefix.rstrip("/")) for each in parts}
    for each in parts:
        if not engine.has(references[each.name]):
            progress(f"{each.name}: building {references[each.name]} with {engine.name}")
            engine.build(each, references[each.name])
    if load and mode == "kind":
        progress("loading images into the kind cluster")
        engine.load_into_kind(references.values())
    elif load:
        progress(f"pushing images to {prefix}")
        engine.push(references.values())
    return references
