"""Vectors in the encoding that the caller asked for, however the answer is cut into pieces."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from assistant_api.embeddings.recoding import MAX_VECTOR, Recoder
from assistant_api.embeddings.schemas import Encoding
from assistant_api.gateway import GatewayUnreachableError

NUMBERS = [[0.5, -1.0, 2.0], [3.0, 4.0, 0.0]]
PACKED = [base64.b64encode(struct.pack("<3f", *each)).decode() for each in NUMBERS]


def answer(vectors: list[Any]) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    # A name that looks like what is looked for.
    return json.dumps(
        {"object": "list", "model": '"embedding": [', "data": data, "usage": {"total_tokens": 2}}
    ).encode()


def recoded(content: bytes, wanted: Encoding, size: int) -> bytes:
    recoder = Recoder(wanted)
    parts = [recoder.feed(content[at : at + size]) for at in range(0, len(content), size)]
    return b"".join((*parts, recoder.end()))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_numbers_become_base64_and_base64_numbers(size: int) -> None:
    """Everything else stays as it was."""
    assert recoded(answer(NUMBERS), "base64", size) == answer(PACKED)
    assert json.loads(recoded(answer(PACKED), "float", size)) == json.loads(answer(NUMBERS))


@pytest.mark.parametrize("size", [1, 13, 10_000])
def test_what_is_right_already_passes_byte_by_byte(size: int) -> None:
    """As mostly."""
    assert recoded(answer(NUMBERS), "float", size) == answer(NUMBERS)
    assert recoded(answer(PACKED), "base64", size) == answer(PACKED)


@pytest.mark.parametrize("vector", [b'["x"]', b"[1e999]", b"[" + b"1," * MAX_VECTOR])
def test_what_is_no_vector_is_refused(vector: bytes) -> None:
    """Nothing grows without end."""
    with pytest.raises(GatewayUnreachableError):
        Recoder("base64").feed(b'{"embedding": ' + vector)


def test_damaged_base64_is_refused() -> None:
    """It would become other numbers."""
    with pytest.raises(GatewayUnreachableError):
        Recoder("float").feed(b'{"embedding": "AAA*"')
