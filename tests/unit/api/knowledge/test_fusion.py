"""One ranking from several knowledge bases."""

from __future__ import annotations

import pytest

from assistant_api.knowledge.fusion import merge, weights
from assistant_api.knowledge.vectors import Found, Hit


def hit(text: str, score: float, similarity: float | None = None, keywords: float | None = None) -> Hit:
    return Hit(
        Found(document_id=f"d-{text}", chunk_index=0, document_name="a", page=None, text=text),
        score,
        similarity,
        keywords,
    )


def test_one_knowledge_base_keeps_its_own_order_and_scores() -> None:
    """With a single knowledge base nothing is to be weighed."""
    hits = [hit("a", 0.9, 0.1, 0.2), hit("b", 0.4)]
    assert merge({"kb": hits}, 0.5) == [("kb", hits[0], 0.9), ("kb", hits[1], 0.4)]


def test_the_best_of_the_wrong_knowledge_base_does_not_win() -> None:
    """Both hits lead their own search; the one with real evidence comes first."""
    right, wrong = hit("right", 1.0, 0.8, 9.0), hit("wrong", 1.0, 0.2, 1.0)
    ranking = merge({"wrong": [wrong], "right": [right]}, 0.5)
    assert [name for name, _, _ in ranking] == ["right", "wrong"]
    assert ranking[0][2] == pytest.approx(1.0)
    assert ranking[1][2] == pytest.approx(0.5 * 0.25 + 0.5 / 9)


def test_a_knowledge_base_without_matching_words_is_weighed_by_likeness_alone() -> None:
    """Where no words match anywhere, likeness decides; where they match in one only, the other loses that part."""
    only_likeness = {"a": [hit("a", 0.6, 0.4)], "b": [hit("b", 0.6, 0.2)]}
    assert weights(only_likeness, 0.6) == pytest.approx({"a": 1.0, "b": 0.5})
    words_in_one = {"a": [hit("a", 1.0, 0.4, 2.0)], "b": [hit("b", 0.6, 0.4)]}
    assert weights(words_in_one, 0.6) == pytest.approx({"a": 1.0, "b": 0.6})


def test_without_evidence_every_knowledge_base_counts_the_same() -> None:
    """A store that explains nothing (or only negative likeness) leaves the relative scores as they are."""
    found = {"a": [hit("a", 0.7)], "b": [hit("b", 0.9, -0.3)], "c": []}
    assert weights(found, 0.5) == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert [name for name, _, _ in merge(found, 0.5)] == ["b", "a"]


def test_no_text_comes_twice() -> None:
    """The same paragraph in two documents or knowledge bases is shown once, at its best place."""
    ranking = merge({"a": [hit("same", 0.5, 0.5), hit("other", 0.4, 0.5)], "b": [hit("same", 0.9, 0.5)]}, 0.5)
    assert [(name, each.found.text) for name, each, _ in ranking] == [("b", "same"), ("a", "other")]


def test_nothing_found_is_nothing() -> None:
    """Empty knowledge bases give an empty ranking."""
    assert merge({"a": [], "b": []}, 0.5) == []
    assert merge({}, 0.5) == []
