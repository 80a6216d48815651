"""What the rest of the API knows about a caller."""

from __future__ import annotations

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """A caller that proved itself; `name` is the API key's, never the key."""

    kind: str
    name: str

    @property
    def user(self) -> str:
        """Whose usage this caller's calls are, unless a request names its end user; no person is called like this."""
        return f"{self.kind.replace('_', '-')}:{self.name}"
