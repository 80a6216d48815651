"""What the stand-in model answers."""

import pytest

from assistant_demo.answering import answer

PROMPT = """Answer from the handbook.
<passages>
<passage n="1" document="service &amp; repair.pdf" page="3">
Torques
The rear axle nuts are tightened to 42 newton metres and checked again after the first 50
kilometres. Use bolts &lt; 8 mm only.
</passage>
<passage n="2" document="reisekosten.md">
## Verpflegung

- Das Tagegeld beträgt 16 Euro bei mehr als acht Stunden Abwesenheit.
- Wird das Frühstück gestellt, werden 6 Euro abgezogen.
</passage>
</passages>"""


def test_it_quotes_the_fitting_sentence_with_its_number() -> None:
    """The sentence that answers is quoted whole, across the PDF's line breaks, and cited."""
    said = answer(PROMPT, "Which torque do the rear axle nuts need?")
    assert "tightened to 42 newton metres and checked again after the first 50 kilometres. [1]" in said
    assert "[2]" not in said


def test_it_says_that_it_is_a_stand_in() -> None:
    """Nobody takes the stand-in for a language model: each answer says so, in the question's language."""
    for question in ("Which torque do the rear axle nuts need?", "What colour is the moon?", "Hello"):
        assert answer(PROMPT, question).startswith("Offline stand-in model")
    assert answer(PROMPT, "Wie hoch ist das Tagegeld?").startswith("Offline-Ersatzmodell")


def test_a_german_question_finds_the_german_sentence() -> None:
    """German questions are answered from German passages."""
    said = answer(PROMPT, "Wie hoch ist das Tagegeld bei acht Stunden Abwesenheit?")
    assert "Das Tagegeld beträgt 16 Euro bei mehr als acht Stunden Abwesenheit. [2]" in said


def test_no_fitting_passage_is_admitted() -> None:
    """When no sentence fits, it says so and cites nothing."""
    said = answer(PROMPT, "Who discovered penicillin?")
    assert "none of the passages" in said
    assert "[" not in said


def test_escaped_signs_come_back() -> None:
    """Signs that the prompt escapes are shown as they were in the document."""
    assert "bolts < 8 mm" in answer(PROMPT, "Which bolts may I use?")


def test_without_passages_it_repeats_instructions_and_question() -> None:
    """An assistant without knowledge shows that instructions and question arrived."""
    said = answer("Be brief.\nBe kind.", "Are you there?")
    assert "«Be brief. Be kind.»" in said
    assert "«Are you there?»" in said


@pytest.mark.parametrize("question", ["", "?!", "the of and"])
def test_a_question_without_meaning_is_answered_all_the_same(question: str) -> None:
    """An empty question is no error."""
    assert "none of the passages" in answer(PROMPT, question)


def test_the_headings_of_a_passage_are_not_quoted() -> None:
    """A passage begins with the headings that it stands under: context for its sentences, and no answer themselves."""
    block = (
        '<passages>\n<passage n="1" document="warranty.md">\nWarranty and returns &gt; Warranty periods\n\n'
        "| battery | 3 years |\n| frame | 10 years |\n</passage>\n</passages>"
    )
    said = answer(block, "How long is the warranty of the battery?")
    assert said.endswith(": battery | 3 years [1]")
    assert answer(block, "How long are the warranty periods?").count("Warranty") == 0
