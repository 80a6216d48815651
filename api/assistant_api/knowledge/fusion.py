"""Make one ranking of what several knowledge bases found.

A hybrid score says how good a chunk is among those of its own search: the best chunk of a knowledge base that has
nothing to say gets as much as the best one of the right knowledge base. So each one's scores are weighed by its best
evidence (likeness, matching words), compared with the best evidence anywhere. Measured in `tools/bench/retrieval`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from assistant_api.knowledge.vectors import Hit


def weights(found: Mapping[str, Sequence[Hit]], alpha: float) -> dict[str, float]:
    """Return how much each knowledge base's scores count, 0..1; 1 for the one with the best evidence of both kinds.

    `alpha` is the weight of likeness next to words. Everything counts fully when the store does not tell the evidence.
    """
    likeness = {name: _best(hit.similarity for hit in hits) for name, hits in found.items()}
    words = {name: _best(hit.keywords for hit in hits) for name, hits in found.items()}
    most_alike, most_words = max(likeness.values(), default=0.0), max(words.values(), default=0.0)
    total = (alpha if most_alike else 0.0) + ((1.0 - alpha) if most_words else 0.0)
    if not total:
        return dict.fromkeys(found, 1.0)
    return {
        name: (
            (alpha * likeness[name] / most_alike if most_alike else 0.0)
            + ((1.0 - alpha) * words[name] / most_words if most_words else 0.0)
        )
        / total
        for name in found
    }


def merge(found: Mapping[str, Sequence[Hit]], alpha: float) -> list[tuple[str, Hit, float]]:
    """Return (knowledge base, hit, score 0..1), the best first; each text once, however often it is stored."""
    weight = weights(found, alpha) if len(found) > 1 else dict.fromkeys(found, 1.0)
    scored = [(name, hit, hit.score * weight[name]) for name, hits in found.items() for hit in hits]
    scored.sort(key=lambda item: (-item[2], item[0], item[1].found.document_id, item[1].found.chunk_index))
    texts: set[str] = set()
    merged = []
    for item in scored:
        if item[1].found.text not in texts:
            texts.add(item[1].found.text)
            merged.append(item)
    return merged


def _best(values: Iterable[float | None]) -> float:
    return max((value for value in values if value is not None and value > 0.0), default=0.0)
