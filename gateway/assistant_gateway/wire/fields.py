"""A JSON object's members, each as the bytes it was written in: what is passed on without being decoded."""

from __future__ import annotations

import msgspec

Fields = dict[str, msgspec.Raw]

_encode = msgspec.json.Encoder().encode


def encode_fields(fields: Fields) -> bytes:
    """Return the object's JSON."""
    return _encode(fields)
