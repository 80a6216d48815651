"""Large bodies are read in pieces, between which others have their turn; small ones are read at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from assistant_gateway.calls import intake
from assistant_gateway.capacity.memory import LEASE, Memory
from assistant_gateway.errors import GatewayError

PART = b"x" * 100_000


class Request(dict[Any, Any]):
    """As much of a request as intake looks at."""

    def __init__(self, parts: list[bytes], length: int | None) -> None:
        super().__init__()
        self.headers: dict[str, str] = {}
        self.content_length = length
        self.left = parts
        self.content = SimpleNamespace(readany=self.readany, is_eof=lambda: False)

    async def readany(self) -> bytes:
        """Return what has arrived."""
        return self.left.pop(0) if self.left else b""


async def read(parts: int, *, length: bool, largest: int = 10_000_000) -> tuple[Any, Request, int]:
    """Read a body of so many parts; return it, its request and how often others had their turn."""
    request, pauses = Request([PART] * parts, parts * len(PART) if length else None), 0

    async def pause() -> None:
        nonlocal pauses
        pauses += 1

    body = await intake.read(request, Memory(2**26), "one", largest, pause)  # type: ignore[arg-type]
    return body, request, pauses


@pytest.mark.parametrize("length", [True, False])
async def test_a_large_body_is_read_in_pieces(length: bool) -> None:
    """And not there twice, whether its length was said or not; what it takes is charged."""
    body, request, pauses = await read(40, length=length)
    assert body == PART * 40
    assert pauses >= 39 + len(body) // 65_536
    assert request[LEASE].held >= 2 * len(body)


async def test_a_small_body_waits_for_nobody() -> None:
    """It is one piece."""
    body, _, pauses = await read(1, length=True)
    assert (body, pauses) == (PART, 0)


async def test_a_body_that_grows_beyond_what_is_taken_is_refused() -> None:
    """As soon as it does, not at its end."""
    with pytest.raises(GatewayError) as refused:
        await read(40, length=False, largest=1_000_000)
    assert refused.value.status == 413
