"""Every language has every sentence, and the caller's language is found."""

from __future__ import annotations

import re
import string

import msgspec
import pytest
from api_world import LOCALES

from assistant_api import errors
from assistant_api.i18n import Catalogs

CATALOGS = {path.stem: msgspec.json.decode(path.read_bytes(), type=dict[str, str]) for path in LOCALES.glob("*.json")}
LANGUAGES = sorted(CATALOGS)


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def test_the_promised_languages_are_there() -> None:
    """English, German and one language that is written from right to left."""
    assert LANGUAGES == ["ar", "de", "en"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_language_lacks_a_sentence(language: str) -> None:
    """A key of one language is a key of all."""
    assert CATALOGS[language].keys() == CATALOGS["en"].keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_placeholders_of_the_original(language: str) -> None:
    """A lost placeholder would hide what the sentence is about; a new one would fail when it is filled."""
    differing = {
        key: (placeholders(sentence), placeholders(CATALOGS["en"][key]))
        for key, sentence in CATALOGS[language].items()
        if placeholders(sentence) != placeholders(CATALOGS["en"][key])
    }
    assert differing == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sentence_is_empty_or_left_in_english(language: str) -> None:
    """A sentence in German or Arabic differs from the English one, unless it holds no words."""
    sentences = CATALOGS[language]
    assert all(sentence.strip() for sentence in sentences.values())
    if language != "en":
        same = [
            key
            for key, sentence in sentences.items()
            if sentence == CATALOGS["en"][key] and re.search("[a-z]{3}", re.sub(r"\{\w+\}", "", sentence))
        ]
        assert same == ["types.null"]


@pytest.mark.parametrize("kind", errors.KINDS.values(), ids=lambda kind: kind.code)
def test_every_kind_of_error_has_its_sentences(kind: errors.Kind) -> None:
    """A code without a title and a detail would turn an error into another one."""
    assert {f"errors.{kind.code}.title", f"errors.{kind.code}.detail"} <= CATALOGS["en"].keys()


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("de", "de"),
        ("de-CH", "de"),
        ("DE-ch, en;q=0.5", "de"),
        ("fr, ar;q=0.8, en;q=0.7", "ar"),
        ("en;q=0.2, de;q=0.9", "de"),
        ("de;q=0, en", "en"),
        ("fr", "en"),
        ("*", "en"),
        ("fr, *;q=0.5, de;q=0.1", "en"),
        ("de;q=x", "en"),
        (";;;,,,", "en"),
        ("de," * 10_000, "de"),
    ],
)
def test_the_language_is_negotiated(header: str | None, language: str) -> None:
    """Weights count, regions fall back to their language, nonsense gives English."""
    assert Catalogs(CATALOGS).negotiate(header) == language


def test_a_catalogue_without_english_is_refused() -> None:
    """English is what every negotiation may fall back to."""
    with pytest.raises(ValueError, match="default language"):
        Catalogs({"de": {}})


def test_a_value_cannot_act_as_a_placeholder() -> None:
    """What a caller sends is filled in, never formatted."""
    catalogs = Catalogs({"en": {"greeting": "Hello {name}"}})
    assert catalogs.text("en", "greeting", {"name": "{secret}"}) == "Hello {secret}"
