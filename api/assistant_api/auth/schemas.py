"""What the rest of the API knows about a caller."""

from __future__ import annotations

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """A caller that proved itself; `name` is the API key's, never the key."""

    kind: str
    name: str
