"""The platform's provider catalogue, as far as the operator needs it: which provider names exist.

The gateway owns the catalogue's meaning. The operator reads the same file only to say `ProviderUnknown` on a
resource instead of letting its first request fail.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from assistant_observability import logs

_log = logs.logger(__name__)


class Catalog:
    """The names of the catalogue's providers; None while the file cannot be read, which forbids nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._content: bytes | None = None
        self.providers: frozenset[str] | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Read the file again; return whether the set of providers changed. An unusable file changes nothing."""
        try:
            content = self._file.read_bytes()
            if content == self._content:
                return False
            document = yaml.safe_load(content)
            providers = frozenset(str(name) for name in (document or {}).get("providers") or {})
        except (OSError, yaml.YAMLError, AttributeError, TypeError) as error:
            if self._content is not None:
                _log.warning("catalogue not usable, the last good one stays", file=str(self._file), error=str(error))
                self._content = None
            return False
        self._content = content
        changed = providers != self.providers
        self.providers = providers
        return changed
