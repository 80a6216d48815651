"""What the vector store answers becomes hits."""

from __future__ import annotations

from types import SimpleNamespace

from assistant_api.knowledge.vectors import hits_of

PROPERTIES = {"document_id": "d1", "chunk_index": 2, "document_name": "a.pdf", "page": 3, "text": "words"}
EXPLAINED = (
    "Hybrid (Result Set vector,hybridVector) Document d: original score 0.8, normalized score: 0.5 - "
    "Hybrid (Result Set keyword,bm25) Document d: original score 1.5, normalized score: 0.5"
)


def found(properties: dict[str, object], score: float | None = 0.9, explained: str | None = EXPLAINED) -> object:
    return SimpleNamespace(properties=properties, metadata=SimpleNamespace(score=score, explain_score=explained))


def test_a_hit_carries_the_chunk_its_score_and_the_evidence() -> None:
    """Everything a citation and a ranking need is taken from the object."""
    (hit,) = hits_of([found(PROPERTIES)])
    assert (hit.found.document_id, hit.found.chunk_index, hit.found.page) == ("d1", 2, 3)
    assert (hit.score, hit.similarity, hit.keywords) == (0.9, 0.8, 1.5)


def test_a_chunk_that_was_deleted_meanwhile_is_no_hit() -> None:
    """It comes back without properties; its neighbours stay hits."""
    assert [hit.found.document_id for hit in hits_of([found({}), found(PROPERTIES)])] == ["d1"]


def test_scores_stay_between_zero_and_one_and_evidence_may_be_missing() -> None:
    """A missing or odd score does no harm."""
    (none, high) = hits_of([found(PROPERTIES, None, None), found(PROPERTIES, 1.7)])
    assert (none.score, none.similarity, none.keywords) == (0.0, None, None)
    assert high.score == 1.0
