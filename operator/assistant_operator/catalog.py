"""The platform's provider catalogue, as far as the operator needs it: which names exist, how long calls may take.

The gateway owns the catalogue's meaning. The operator reads the same file only to say `ProviderUnknown` on a
resource instead of letting its first request fail.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from assistant_crds.contracts import TOTAL_SECONDS
from assistant_observability import logs

_log = logs.logger(__name__)


class Catalog:
    """The names of the catalogue's providers; None while the file cannot be read, which forbids nothing.

    `gateway_seconds` is the longest `totalSeconds` of a provider, or of a tenant's own endpoint (the default).
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._content: bytes | None = None
        self.providers: frozenset[str] | None = None
        self.gateway_seconds = TOTAL_SECONDS
        self.refresh()

    def refresh(self) -> bool:
        """Read the file again; return whether what is used of it changed. An unusable file changes nothing."""
        try:
            content = self._file.read_bytes()
            if content == self._content:
                return False
            found = (yaml.safe_load(content) or {}).get("providers") or {}
            providers = frozenset(str(name) for name in found)
            seconds = max([TOTAL_SECONDS, *(_total_seconds(found[name]) for name in found)])
        except (OSError, yaml.YAMLError, AttributeError, TypeError) as error:
            if self._content is not None:
                _log.warning("catalogue not usable, the last good one stays", file=str(self._file), error=str(error))
                self._content = None
            return False
        self._content = content
        changed = (providers, seconds) != (self.providers, self.gateway_seconds)
        self.providers, self.gateway_seconds = providers, seconds
        return changed


def _total_seconds(provider: object) -> float:
    """Return a provider's own bound; what is no number is the gateway's to refuse."""
    try:
        return float(provider.get("totalSeconds") or 0) if isinstance(provider, dict) else 0.0
    except (TypeError, ValueError):
        return 0.0
