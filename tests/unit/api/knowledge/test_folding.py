"""Other spellings of words."""

from __future__ import annotations

import pytest

from assistant_api.knowledge.folding import spellings, widened


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("Müller", "muller mueller"),
        ("MÜLLER Straße", "muller mueller strasse"),
        ("café naïve", "cafe naive"),
        ("Smørrebrød Łódź", "smorrebrod smoerrebroed lodz"),
        ("Málaga, 5 años", "malaga anos"),
        ("Übergrößenträger", "ubergrossentrager uebergroessentraeger"),
        ("αυτοκίνητο", "αυτοκινητο"),
        ("ёлка мой", "елка"),
        ("كَتَبَ", "كتب"),
        ("الأســــتاذ", "الاستاذ"),
        ("مدرسة ١٢٣", "مدرسه 123"),
        ("ﻻ", "لا"),
        ("שָׁלוֹם", "שלום"),
    ],
)
def test_a_word_has_its_spelling_without_accents_beside_it(text: str, others: str) -> None:
    """Accents, vowel marks and stretching go; umlauts are spelt out as well; digits become common ones."""
    assert spellings(text) == others


@pytest.mark.parametrize(
    "text", ["v1.38.8 E-4711", "it@example.com blue", "10² m² ¼", "が 한국어 नमस्ते 世界", "мой", ""]
)
def test_a_word_that_has_no_other_spelling_adds_nothing(text: str) -> None:
    """Plain letters, raised digits, and scripts whose marks are halves of letters stay as they are."""
    assert spellings(text) == ""
    assert widened(text) == text


def test_a_question_is_asked_with_all_spellings_once() -> None:
    """The question comes first, as it was written; repeated words add nothing."""
    assert widened("Müller oder Müller in 10 Straßen?") == "Müller oder Müller in 10 Straßen? muller mueller strassen"
