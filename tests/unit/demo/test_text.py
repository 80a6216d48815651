"""Words and stems."""

import pytest

from assistant_demo.text import is_german, stem, terms, tokens, words


@pytest.mark.parametrize(
    ("one", "other"), [("charging", "charged"), ("batteries", "battery"), ("Erstattung", "erstattet"), ("nuts", "nut")]
)
def test_inflections_of_a_word_have_one_stem(one: str, other: str) -> None:
    """Forms of one word meet in their stem, in English and in German."""
    assert stem(words(one)[0]) == stem(words(other)[0])


def test_codes_and_numbers_stay_whole() -> None:
    """An error code or a number is never shortened, as its last sign tells it from the next."""
    assert terms("E23 UN-3480 6.2") == ["e23", "un", "3480", "6.2"]


def test_function_words_are_no_terms() -> None:
    """Words without meaning of their own do not take part in the comparison."""
    assert terms("What is the torque of the nuts?") == [stem("torque"), "nut"]


def test_language_is_told_by_function_words() -> None:
    """German and English questions are told apart."""
    assert is_german("Wie hoch ist das Tagegeld?")
    assert not is_german("How high is the daily allowance?")


def test_tokens_joined_are_the_text() -> None:
    """A streamed answer, put together again, is the answer."""
    text = "Zwei Sätze. [1] Mit\n\nAbsatz, 6.2 Nm!"
    assert "".join(tokens(text)) == text
