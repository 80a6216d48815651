"""Why a document is not ready, in the caller's language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from api_world import LOCALES

from assistant_api import knowledge
from assistant_api.i18n import Catalogs
from assistant_api.knowledge.explanations import explainer

CATALOGS = Catalogs.load(LOCALES)
# Codes as they are given to the errors of the worker, or to the constants that name them.
_GIVEN = re.compile(r'(?:ParsingError|ParseFailed|RejectedError|UnavailableError)\(\s*"([a-z_]+)"')
_NAMED = re.compile(r'^(?:TOO_LONG|ENCRYPTED|DAMAGED|NO_TEXT|REFUSED|MISMATCH) = "([a-z_]+)"', re.MULTILINE)


def codes() -> set[str]:
    sources = [path.read_text() for path in Path(knowledge.__file__).parent.glob("*.py")]
    return {code for source in sources for pattern in (_GIVEN, _NAMED) for code in pattern.findall(source)}


def test_every_code_of_a_document_is_explained() -> None:
    """A code that the worker can write has a sentence in every language."""
    found = codes()
    assert len(found) >= 15
    assert not [code for code in found if not CATALOGS.has(f"documents.{code}")]


@pytest.mark.parametrize(
    ("language", "expected"),
    [("de", "Das PDF ist durch ein Passwort geschützt. Bitte laden Sie es ohne Passwort hoch."), (None, "As written.")],
)
def test_the_explanation_is_in_the_callers_language(language: str | None, expected: str) -> None:
    """English callers get the worker's own sentence, which may name numbers; others the sentence of the code."""
    assert explainer(CATALOGS, language)("document_encrypted", "As written.") == expected


def test_an_unknown_code_keeps_the_workers_sentence() -> None:
    """A worker newer than the API is still understood, in English."""
    assert explainer(CATALOGS, "ar")("something_new", "As written.") == "As written."
