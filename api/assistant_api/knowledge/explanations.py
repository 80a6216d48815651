"""Why a document is not ready, in the caller's language. The worker, which has no caller, writes it down in English."""

from __future__ import annotations

from collections.abc import Callable

from assistant_api.i18n import DEFAULT_LANGUAGE, Catalogs

# code, the worker's own sentence -> the sentence to show
Explain = Callable[[str, str], str]


def explainer(catalogs: Catalogs, accept_language: str | None) -> Explain:
    """Return the function that explains a document's error to this caller; the worker's own sentence says most."""
    language = catalogs.negotiate(accept_language)

    def explain(code: str, message: str) -> str:
        key = f"documents.{code}"
        if language == DEFAULT_LANGUAGE or not catalogs.has(key):
            return message
        return catalogs.text(language, key)

    return explain
