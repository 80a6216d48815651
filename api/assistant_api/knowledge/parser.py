"""The parser's process: reads a document on standard input, answers with its chunks on standard output, repeatedly.

Documents come from strangers, and PDFs are parsed by a large C++ library. In a process of its own, a hostile one
can at worst end that process: its memory is bounded here, its time by the worker, which kills it (`sandbox.py`).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from assistant_api.knowledge.chunking import Chunk, chunk
from assistant_api.knowledge.parsing import ParsingError, parse

LENGTH = struct.Struct(">I")  # before each message: its size in bytes
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ParseRequest(msgspec.Struct, frozen=True):
    """One document, and how to cut it. Its content, `bytes` long, follows the message as it is."""

    media_type: str
    bytes: int
    max_tokens: int
    overlap_tokens: int


class Parsed(msgspec.Struct, frozen=True, tag="parsed"):
    """The chunks of a document in reading order, and how many pages it has."""

    pages: int
    chunks: list[Chunk]


class ParseFailed(msgspec.Struct, frozen=True, tag="failed"):
    """Why there are none: see `ParsingError`."""

    code: str
    message: str


OUT_OF_MEMORY = ParseFailed("parser_out_of_memory", "Reading the document takes more memory than is allowed; split it.")
FAILED = ParseFailed("parser_failed", "The document could not be read; it may be damaged.")


def answer(request: ParseRequest, content: bytes) -> Parsed | ParseFailed:
    """Return what became of a document. Never raises."""
    pages = 0

    def counted() -> Iterator[str]:
        nonlocal pages
        for page in parse(request.media_type, content):
            pages += 1
            yield page

    try:
        chunks = list(chunk(request.media_type, counted(), request.max_tokens, request.overlap_tokens))
    except ParsingError as error:
        return ParseFailed(error.code, error.message)
    except MemoryError:
        return OUT_OF_MEMORY
    except Exception as error:  # noqa: BLE001  whatever it is, it is this document's and must not end the process
        print(f"parser: {type(error).__name__}", file=sys.stderr)  # noqa: T201  never the text: it may quote the document
        return FAILED
    return Parsed(pages, chunks)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until `source` ends."""
    while header := source.read(LENGTH.size):
        (size,) = LENGTH.unpack(header)
        request = msgspec.msgpack.decode(source.read(size), type=ParseRequest)
        reply = msgspec.msgpack.encode(answer(request, source.read(request.bytes)))
        sink.write(LENGTH.pack(len(reply)))
        sink.write(reply)
        sink.flush()


def main(memory: int) -> None:
    """Serve with at most `memory` bytes of address space; no core dump, no files to write, no life after the worker."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        # A worker that was killed cannot kill this process, which may be in an endless loop: the kernel does.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A library that prints must not print into an answer.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as sink:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main(int(sys.argv[1]))
