"""A TenantConfig over several files, as no object of the cluster holds more than a mebibyte.

The first file is a TenantConfig with the first assistants and knowledge bases; it names the digest of each further
file. Readers put them together only when all are those that it names, so that what they serve is of one generation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import msgspec

from assistant_crds.contracts import (
    AssistantConfig,
    Contract,
    KnowledgeBaseConfig,
    TenantConfig,
    UnavailableAssistant,
    encode,
)

# Of one file. The API server takes 1,048,576 bytes of data in an object.
MOST_BYTES = 1_000_000
# Of everything that is split, over all files: what a pod of 256Mi can hold twice, while it swaps one for the other.
MOST_IN_ALL = 28_000_000
MOST_PARTS = 39
# Of what is said of assistants that cannot be asked: it stands in the first file, beside the digests.
MOST_UNAVAILABLE = 300_000
# How many further files a pod mounts: they may be missing, so that pods are made anew only at these sizes.
MOUNTED = (0, 1, 3, 7, 15, MOST_PARTS)


class TenantConfigPart(Contract, frozen=True):
    """A further file."""

    assistants: list[AssistantConfig]
    knowledge_bases: list[KnowledgeBaseConfig]


class IncompleteError(ValueError):
    """A further file is missing, or is not the one that the first file names: they are being written."""


def file_name(number: int) -> str:
    """Return the name of a further file, and its key in the ConfigMap; counted from 1."""
    return f"part-{number}.json"


def size(item: AssistantConfig | KnowledgeBaseConfig) -> int:
    """Return what an item takes of `MOST_IN_ALL`, in bytes."""
    return len(encode(item)) + 1


def mounted(parts: int) -> int:
    """Return how many further files a pod mounts for that many parts."""
    return next(number for number in MOUNTED if number >= parts)


def split(config: TenantConfig) -> list[bytes]:
    """Return the files of a sealed configuration, the first one first; a small one is a single file.

    Raises:
        ValueError: it takes more than `MOST_PARTS` further files.
    """
    config = msgspec.structs.replace(config, unavailable=_first(config.unavailable))
    groups: list[tuple[list[AssistantConfig], list[KnowledgeBaseConfig]]] = [([], [])]
    room = (
        MOST_BYTES - len(encode(msgspec.structs.replace(config, assistants=[], knowledge_bases=[]))) - 20 * MOST_PARTS
    )
    items: list[AssistantConfig | KnowledgeBaseConfig] = [*config.knowledge_bases, *config.assistants]
    for item in items:
        needed = size(item)
        if needed > room:
            groups.append(([], []))
            room = MOST_BYTES - 100
        room -= needed
        assistants, bases = groups[-1]
        if isinstance(item, AssistantConfig):
            assistants.append(item)
        else:
            bases.append(item)
    if len(groups) > 1 + MOST_PARTS:
        raise ValueError(f"the configuration takes {len(groups)} files, of at most {1 + MOST_PARTS}")
    further = [encode(TenantConfigPart(assistants=some, knowledge_bases=bases)) for some, bases in groups[1:]]
    some, bases = groups[0]
    parts = [_digest(content) for content in further]
    return [encode(msgspec.structs.replace(config, assistants=some, knowledge_bases=bases, parts=parts)), *further]


def join(first: bytes, read: Callable[[str], bytes]) -> TenantConfig:
    """Return the whole configuration; `read` gives the content of a further file by its name.

    Raises:
        IncompleteError: the files are not all of one generation, or one cannot be read.
        msgspec.MsgspecError: a file is not what it should be.
    """
    config = msgspec.json.decode(first, type=TenantConfig)
    if not config.parts:
        return config
    assistants, bases = list(config.assistants), list(config.knowledge_bases)
    for part in _further(config.parts[:MOST_PARTS], read):
        assistants += part.assistants
        bases += part.knowledge_bases
    return msgspec.structs.replace(config, assistants=assistants, knowledge_bases=bases, parts=[])


def _further(digests: list[str], read: Callable[[str], bytes]) -> Iterable[TenantConfigPart]:
    for number, digest in enumerate(digests, 1):
        name = file_name(number)
        try:
            content = read(name)
        except OSError as error:
            raise IncompleteError(f"{name} cannot be read: {error.strerror}") from error
        if _digest(content) != digest:
            raise IncompleteError(f"{name} is of another generation")
        yield msgspec.json.decode(content, type=TenantConfigPart)


def _first(unavailable: list[UnavailableAssistant]) -> list[UnavailableAssistant]:
    """Return as many of them as fit; one that is left out is answered as if it did not exist."""
    kept, room = [], MOST_UNAVAILABLE
    for item in unavailable:
        room -= len(encode(item)) + 1
        if room < 0:
            break
        kept.append(item)
    return kept


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
