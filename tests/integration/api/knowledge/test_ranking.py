"""The promise about search: both ways together are at least as good as the better of them alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from api_tenant import make_tenant

from assistant_api.knowledge.fusion import merge
from assistant_api.knowledge.retrieval import ALPHA
from assistant_api.knowledge.vectors import Vectors
from assistant_cluster import stores

NOISE = 0.005  # less than one answer of the forty one place further down
BENCH = Path(__file__).parents[4] / "tools" / "bench" / "retrieval" / "measure.py"


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    """The measurement in `tools/bench/retrieval`."""
    spec = importlib.util.spec_from_file_location("retrieval_measure", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("max_tokens", [60, 150])
@pytest.mark.parametrize("spread", [False, True], ids=["one", "two"])
async def test_hybrid_search_is_as_good_as_the_better_half(
    measure: ModuleType, postgres: stores.Postgres, weaviate_store: stores.Weaviate, max_tokens: int, spread: bool
) -> None:
    """On the labelled set, in one knowledge base or two; and weighing two against each other does not harm."""
    tenant = await make_tenant(postgres, weaviate_store)
    store = tenant.vector_store()
    vectors = Vectors(store)
    try:
        await measure.fill(tenant, vectors, max_tokens, spread=spread)
        scores = {}
        for alpha in (0.0, ALPHA, 1.0):
            score, plain = measure.Score(), measure.Score()
            for question in measure.questions():
                found = await measure.rank(tenant, vectors, question.question, alpha, spread=spread)
                score.add(question, [hit.found.text for _, hit, _ in merge(found, alpha)])
                every = sorted((hit for hits in found.values() for hit in hits), key=lambda hit: -hit.score)
                plain.add(question, [hit.found.text for hit in every])
            scores[alpha] = score.mean
            assert score.mean >= plain.mean - NOISE
    finally:
        await store.close()
    assert scores[ALPHA] >= max(scores[0.0], scores[1.0]) - NOISE
    assert scores[ALPHA] > 0.75
