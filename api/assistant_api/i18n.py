"""Sentences in the caller's language: catalogues from `locales/*.json`, chosen by `Accept-Language` (RFC 9110).

Codes and field names are never translated; only what a person reads is. A catalogue is a flat JSON object from key to
sentence with `{placeholders}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec

DEFAULT_LANGUAGE = "en"
_MAX_HEADER_LENGTH = 256  # longer headers are no person's


class Catalogs:
    """The sentences of every language; all have the same keys (a test sees to it)."""

    def __init__(self, sentences: Mapping[str, Mapping[str, str]]) -> None:
        if DEFAULT_LANGUAGE not in sentences:
            raise ValueError(f"no sentences for the default language {DEFAULT_LANGUAGE!r}")
        self._sentences = sentences
        self._negotiate = lru_cache(maxsize=256)(self._choose)

    @classmethod
    def load(cls, folder: Path) -> Catalogs:
        """Read every `<language>.json` of `folder`."""
        return cls(
            {
                path.stem: msgspec.json.decode(path.read_bytes(), type=dict[str, str])
                for path in sorted(folder.glob("*.json"))
            }
        )

    @property
    def languages(self) -> list[str]:
        """The languages that can be asked for."""
        return sorted(self._sentences)

    def negotiate(self, accept_language: str | None) -> str:
        """Return the best language for an `Accept-Language` header; nonsense gives the default."""
        return self._negotiate(accept_language[:_MAX_HEADER_LENGTH]) if accept_language else DEFAULT_LANGUAGE

    def has(self, key: str) -> bool:
        """Whether there is a sentence for `key`."""
        return key in self._sentences[DEFAULT_LANGUAGE]

    def under(self, language: str, prefix: str) -> dict[str, str]:
        """Return the sentences whose keys begin with `prefix`, by their keys without it."""
        sentences = self._sentences[language].items()
        return {key.removeprefix(prefix): sentence for key, sentence in sentences if key.startswith(prefix)}

    def text(self, language: str, key: str, values: Mapping[str, object] | None = None) -> str:
        """Return the sentence of `key`, filled with `values`; KeyError for an unknown key or a missing value."""
        sentence = self._sentences[language][key]
        return sentence.format_map(values or {})

    def _choose(self, header: str) -> str:
        weighed: list[tuple[float, int, str]] = []
        for position, part in enumerate(header.split(",")):
            tag, _, parameters = part.strip().partition(";")
            weight = _weight(parameters)
            # `de-CH` is served by `de`; `*` by the default.
            language = DEFAULT_LANGUAGE if tag.strip() == "*" else tag.strip().lower().partition("-")[0]
            if weight > 0 and language in self._sentences:
                weighed.append((-weight, position, language))
        return min(weighed)[2] if weighed else DEFAULT_LANGUAGE


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
