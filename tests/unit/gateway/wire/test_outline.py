"""Of a large answer only its small members are looked at, piece by piece."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.wire import outline as module
from assistant_gateway.wire.outline import LARGEST_MEMBER, PIECE_BYTES, holds, outline

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


async def nothing() -> None:
    """Pause for nobody."""


def outlined(raw: bytes) -> bytes:
    """Return the outline, without an event loop's help."""
    return asyncio.run(outline(raw, nothing))


@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=6), st.booleans(), st.sampled_from([1, 2, 3, 7, 8192]))
def test_a_small_document_is_its_own_outline(document: dict[str, Any], ascii_only: bool, size: int) -> None:
    """However it is written, and wherever it is cut into pieces."""
    raw = json.dumps(document, ensure_ascii=ascii_only, indent=size % 2 or None).encode(errors="surrogatepass")
    before, module.PIECE_BYTES = module.PIECE_BYTES, size
    try:
        assert json.loads(outlined(raw).decode(errors="surrogatepass")) == document
    finally:
        module.PIECE_BYTES = before


@pytest.mark.parametrize(
    "large",
    [
        "x" * 100_000,
        '\\"{["' * 30_000,
        [{"message": {"content": 'a "quoted" {word}, [1]: \\' * 5000}}],
        [[]] * 40_000,
        {str(number): number for number in range(20_000)},
        [0.125] * 50_000,
    ],
    ids=["text", "escapes", "choices", "brackets", "members", "numbers"],
)
def test_a_large_member_is_empty_and_the_others_are_as_they_were(large: Any) -> None:
    """Wherever it stands, and whatever is in it."""
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    raw = json.dumps({"id": "a", "choices": large, "usage": usage, "model": 'm"}'}, ensure_ascii=False).encode()
    found = json.loads(outlined(raw))
    assert found == {"id": "a", "choices": type(large)(), "usage": usage, "model": 'm"}'}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'"a"',
        b"x",
        b'{"a":1',
        b'{"a":[1}',
        b'{"a":1}}',
        b'{"a":1}{',
        b'{"a"}',
        b"{,}",
        b'{"a":"',
        b"}",
        b"<p>",
    ],
)
def test_what_is_no_object_has_no_outline_that_could_be_read(raw: bytes) -> None:
    """Whoever reads it finds that out."""
    for document in (raw, raw + b" " * 200_000):
        with pytest.raises(ValueError, match=r"."):
            json.loads(outlined(document) or b"nothing")


def test_an_outline_is_small_whatever_was_written() -> None:
    """Many members, long names, many of a middling size."""
    for document in (
        {f"a{number}": 1 for number in range(100_000)},
        {"x" * 100_000: 1, "y": 2},
        {str(number): "x" * (LARGEST_MEMBER - 10) for number in range(100)},
    ):
        assert len(outlined(json.dumps(document).encode())) < 200_000


@pytest.mark.parametrize("text", ["x" * 4_000_000, '"' * 500_000], ids=["text", "escapes"])
async def test_others_have_their_turn(text: str) -> None:
    """After so many bytes that are only counted, and each piece of others."""
    pauses = 0

    async def pause() -> None:
        nonlocal pauses
        pauses += 1

    raw = json.dumps({"choices": [text], "usage": {}}).encode()
    await outline(raw, pause)
    assert pauses >= len(raw) // (module.AT_ONCE * PIECE_BYTES)
    assert not await holds(raw, b"secret", pause)
    assert pauses >= 2 * (len(raw) // (module.AT_ONCE * PIECE_BYTES))


async def test_a_text_is_found_wherever_it_stands() -> None:
    """Across the end of a piece, too."""
    size = module.AT_ONCE * PIECE_BYTES
    for at in (0, size - 3, size, 2 * size - 1):
        raw = bytearray(b"x" * 3 * size)
        raw[at : at + 6] = b"secret"
        assert await holds(raw, b"secret", nothing)
    assert not await holds(b"x" * 3 * size, b"secret", nothing)
