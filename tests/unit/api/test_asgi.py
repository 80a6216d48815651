"""What is read of a request without a framework."""

from __future__ import annotations

from typing import Any

import pytest

from assistant_api.asgi import origin_of


def scope(**headers: str) -> Any:
    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "scheme": "http", "headers": named}


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ({"host": "acme.example:8080"}, "http://acme.example:8080"),
        ({"host": "[::1]:8080"}, "http://[::1]:8080"),
        ({"host": "acme.example", "x_forwarded_proto": "https"}, "https://acme.example"),
        ({"host": "10.0.0.1", "x_forwarded_proto": "https, http", "x_forwarded_host": "a.example, b"}, "https://a.example"),
        ({"host": "acme.example", "x_forwarded_proto": "javascript"}, "http://acme.example"),
        ({"host": "acme.example/x?"}, ""),
        ({"host": 'a" onclick="b'}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_addresses_are_told_as_the_caller_sees_them(headers: dict[str, str], origin: str) -> None:
    """By its own word or its proxy's, when that is a host's name; else addresses are paths."""
    assert origin_of(scope(**headers)) == origin
