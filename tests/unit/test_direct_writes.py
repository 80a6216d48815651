"""What the two files rely on that write to a connection past their server: uvicorn's and aiohttp's own code.

`api/assistant_api/direct_write.py` sets attributes of uvicorn's cycle; `gateway/assistant_gateway/calls/streaming.py`
writes chunks between those of aiohttp's writer. Neither is promised by an interface, so the code itself is pinned: with
a new version that changes it, read the change against the file, then pin the new digest.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable

import pytest
from aiohttp.http_writer import StreamWriter
from aiohttp.web_response import StreamResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

PINNED: list[tuple[type | Callable[..., object], str]] = [
    (RequestResponseCycle, "e67d470d435dcc1c"),
    (HttpToolsProtocol.on_headers_complete, "1ea8589acfad92d8"),
    (StreamWriter, "de8e4561e3ce1cfc"),
    (StreamResponse.write, "c1ed77613e169a01"),
]


def digest(code: type | Callable[..., object]) -> str:
    """Return the beginning of the SHA-256 of some code's source."""
    return hashlib.sha256(inspect.getsource(code).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("code", "pinned"), PINNED, ids=[code.__qualname__ for code, _ in PINNED])
def test_the_code_that_direct_writes_rely_on_is_as_it_was(code: type | Callable[..., object], pinned: str) -> None:
    """Another source is a new version that has to be read before it is used."""
    assert digest(code) == pinned, f"{code.__module__}.{code.__qualname__} has changed: see this file's docstring"
