"""How well the right chunk is found: words alone, likeness alone, both; in one knowledge base and spread over two.

    .venv/bin/python tools/bench/retrieval/measure.py

The corpus is the demo's handbook (English and German) and a licence, which answers nothing; `questions.json` has 40
questions, each with words of the chunk that answers it. The vectors are the demo's stand-in for an embedding model,
which knows spelling and no meaning: the figures compare ways of ranking, they do not rate a model.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import msgspec

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "tests" / "integration" / "api" / "support"))

from api_tenant import DIMENSIONS, Tenant, make_tenant  # noqa: E402

from assistant_api.knowledge import media  # noqa: E402
from assistant_api.knowledge.chunking import chunk  # noqa: E402
from assistant_api.knowledge.fusion import merge  # noqa: E402
from assistant_api.knowledge.parsing import parse  # noqa: E402
from assistant_api.knowledge.vectors import Hit, Vectors  # noqa: E402
from assistant_cluster import stores  # noqa: E402
from assistant_demo.embedding import embed  # noqa: E402

DEPTH = 10
ALPHAS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


class Question(msgspec.Struct):
    """A question and words that only the right chunk holds."""

    question: str
    answer: str


@dataclass
class Score:
    """Mean reciprocal rank, and how often the right chunk is among the first 1, 3, 6."""

    ranks: list[int | None] = field(default_factory=list)

    def add(self, question: Question, texts: list[str]) -> None:
        """Note where the answer is in a ranking."""
        found = (place for place, text in enumerate(texts, 1) if question.answer in " ".join(text.split()))
        self.ranks.append(next(found, None))

    @property
    def mean(self) -> float:
        """Mean reciprocal rank."""
        return sum(1 / rank for rank in self.ranks if rank is not None) / len(self.ranks)

    def __str__(self) -> str:
        count = len(self.ranks)
        within = [sum(rank is not None and rank <= depth for rank in self.ranks) / count for depth in (1, 3, 6)]
        return f"MRR {self.mean:.3f}   first {within[0]:.3f}   first 3 {within[1]:.3f}   first 6 {within[2]:.3f}"


def corpus() -> list[Path]:
    """The documents, the demo's first."""
    handbook = ROOT / "tools" / "demo" / "handbook"
    return [*sorted(handbook.rglob("*.md")), *sorted(handbook.glob("*.txt")), ROOT / "LICENSE"]


async def fill(tenant: Tenant, vectors: Vectors, max_tokens: int, *, spread: bool) -> int:
    """Write the corpus into one knowledge base, or into two, and return the number of chunks."""
    total = 0
    for path in corpus():
        kind = media.MARKDOWN if path.suffix == ".md" else media.TEXT
        chunks = list(chunk(kind, parse(kind, path.read_bytes()), max_tokens, 0))
        base = tenant.knowledge_bases[1 if spread and path.parent.name != "handbook" else 0]
        embedded = [embed(piece.text, DIMENSIONS) for piece in chunks]
        await vectors.write(base.key, (uuid5(NAMESPACE_URL, path.name), path.name), 0, chunks, embedded)
        total += len(chunks)
    return total


async def rank(tenant: Tenant, vectors: Vectors, question: str, alpha: float, *, spread: bool) -> dict[str, list[Hit]]:
    """Search every knowledge base in use."""
    vector = embed(question, DIMENSIONS)
    return {
        base.name: await vectors.search(base.key, question, vector, alpha, DEPTH)
        for base in tenant.knowledge_bases[: 2 if spread else 1]
    }


def questions() -> list[Question]:
    """The labelled set."""
    return msgspec.json.decode((Path(__file__).parent / "questions.json").read_bytes(), type=list[Question])


async def measure(postgres: stores.Postgres, weaviate: stores.Weaviate, max_tokens: int, *, spread: bool) -> None:
    """Print the scores of each weight, with and without weighing knowledge bases against each other."""
    tenant = await make_tenant(postgres, weaviate)
    store = tenant.vector_store()
    vectors = Vectors(store)
    total = await fill(tenant, vectors, max_tokens, spread=spread)
    print(f"\n{total} chunks of at most {max_tokens} tokens in {'two knowledge bases' if spread else 'one'}")
    for alpha in ALPHAS:
        weighed, plain = Score(), Score()
        for question in questions():
            found = await rank(tenant, vectors, question.question, alpha, spread=spread)
            weighed.add(question, [hit.found.text for _, hit, _ in merge(found, alpha)])
            everything = sorted((hit for hits in found.values() for hit in hits), key=lambda hit: -hit.score)
            plain.add(question, [hit.found.text for hit in everything])
        print(f"  alpha {alpha:.1f}   {weighed}" + (f"\n    not weighed {plain}" if spread else ""))
    await store.close()


def main() -> None:
    """Measure on stores of its own."""
    with stores.postgres() as postgres, stores.weaviate() as weaviate:
        for max_tokens in (60, 150):
            for spread in (False, True):
                asyncio.run(measure(postgres, weaviate, max_tokens, spread=spread))


if __name__ == "__main__":
    main()
