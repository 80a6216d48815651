"""Deterministic embeddings."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant_demo.embedding import embed


def similarity(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(embed(one, 384), embed(other, 384), strict=True))


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=200), dimensions=st.integers(8, 512))
def test_every_text_has_a_unit_vector(text: str, dimensions: int) -> None:
    """Whatever the text, its vector has the asked length, finite numbers and norm 1."""
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert math.isclose(sum(value * value for value in vector), 1.0, rel_tol=1e-9)


def test_the_same_text_has_the_same_vector_in_every_process() -> None:
    """Embeddings rest on nothing that changes between runs, such as Python's own string hash."""
    assert embed("torque", 8) == pytest.approx(
        [0.33333, -0.5, -0.16667, 0.0, -0.16667, -0.16667, -0.66667, 0.33333], abs=1e-4
    )


@pytest.mark.parametrize(
    ("question", "fitting", "other"),
    [
        (
            "How long may I charge the battery?",
            "Charging the batteries takes four hours.",
            "The brake discs have six bolts.",
        ),
        ("Wie wird eine Übernachtung erstattet?", "Übernachtungen werden bis 130 Euro erstattet.", "Das Auto ist rot."),
        ("Achsmutter", "Die Muttern der Achse", "Die Klingel am Lenker"),
    ],
)
def test_a_question_is_nearer_to_the_text_that_answers_it(question: str, fitting: str, other: str) -> None:
    """Texts that share words or parts of words are nearer than texts that do not."""
    assert similarity(question, fitting) > similarity(question, other) + 0.1
