"""Words are found in other spellings than the document's, on a real vector store."""

from __future__ import annotations

import uuid

import pytest
from api_tenant import DIMENSIONS
from knowledge_world import World
from weaviate.classes.config import Configure, DataType, Property, Tokenization

from assistant_api.clients import VectorStore
from assistant_api.knowledge.chunking import Chunk
from assistant_api.knowledge.text import normalise
from assistant_api.knowledge.vectors import VectorRefusedError, Vectors
from assistant_cluster import stores
from assistant_crds import naming
from assistant_operator.adapters import weaviate as operator_weaviate

TEXTS = {
    "umlaut": "Frau Müller prüft die Größe der Straße.",
    "spelt out": "Herr Mueller wohnt in Koeln.",
    "plain": "Mister Muller lives in Dover.",
    "french": "Le café naïf de Besançon.",
    "arabic": "كَتَبَ الأســــتاذ ١٢٣ رسالة",
    "exact": "Error E-4711 in version 1.38.8, write to ops.köhler@example.com.",
    "other": "Nothing of the kind is written here.",
}
VECTOR = [1.0] + [0.0] * (DIMENSIONS - 1)


async def words(vectors: Vectors, base: str, query: str) -> list[str]:
    """What a search by words alone finds, the best first."""
    hits = await vectors.search(base, normalise(query), VECTOR, 0.0, len(TEXTS))
    return [hit.found.document_name for hit in hits if hit.keywords]


async def write(vectors: Vectors, base: str) -> None:
    for name, text in TEXTS.items():
        await vectors.write(base, (uuid.uuid4(), name), 0, [Chunk(normalise(text), None)], [VECTOR])


async def test_words_are_found_in_every_usual_spelling(world: World) -> None:
    """With and without accents, umlauts spelt out, with and without Arabic vowels; what is written so comes first."""
    await write(world.vectors, world.base.key)
    for query, first, others in (
        ("Müller", "umlaut", {"spelt out", "plain"}),
        ("Mueller", "spelt out", {"umlaut"}),
        ("Muller", "plain", {"umlaut"}),
        ("MÜLLER", "umlaut", {"spelt out", "plain"}),
        ("Strasse", "umlaut", set()),
        ("Groesse", "umlaut", set()),
        ("Köln", "spelt out", set()),
        ("cafe", "french", set()),
        ("Besancon", "french", set()),
        ("كتب", "arabic", set()),
        ("الاستاذ", "arabic", set()),
        ("123", "arabic", set()),
        ("١٢٣", "arabic", set()),
    ):
        found = await words(world.vectors, world.base.key, query)
        assert (query, found[:1], set(found[1:])) == (query, [first], others)


@pytest.mark.parametrize("query", ["E-4711", "1.38.8", "ops.köhler@example.com", "ops.koehler@example.com"])
async def test_exact_tokens_come_first(world: World, query: str) -> None:
    """Error codes, versions and addresses are found as they are written."""
    await write(world.vectors, world.base.key)
    assert (await words(world.vectors, world.base.key, query))[0] == "exact"


async def test_a_collection_of_an_earlier_release_is_widened_and_never_out_of_use(
    world: World, weaviate_store: stores.Weaviate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the operator has widened it, it is searched as it is and takes nothing in; then old and new are found."""
    name, key = f"Older{uuid.uuid4().hex[:8]}", naming.knowledge_base_key(world.tenant.key, str(uuid.uuid4()))
    monkeypatch.setattr(operator_weaviate, "COLLECTION", name)
    operator = world.tenant.operator_vectors()
    store = VectorStore(weaviate_store.url, weaviate_store.grpc, world.tenant.vector_key, lambda: name)
    try:
        await _make_as_before(operator, name, key)
        assert await operator._ensure_role(await operator._connected(), world.tenant.key, [key])
        vectors = Vectors(store)
        assert await words(vectors, key, "Müller") == ["old"]
        assert await words(vectors, key, "Muller") == []
        with pytest.raises(VectorRefusedError):
            await write(vectors, key)
        assert await operator.ensure_access(world.tenant.key, [key])
        assert not await operator.ensure_access(world.tenant.key, [key])  # nothing is written twice
        await write(vectors, key)
        assert set(await words(vectors, key, "Müller")) == {"old", "umlaut", "spelt out", "plain"}
        assert "umlaut" in await words(vectors, key, "Muller")
    finally:
        await (await operator._connected()).collections.delete(name)
        await operator.close()
        await store.close()


async def _make_as_before(operator: operator_weaviate.Weaviate, name: str, key: str) -> None:
    """Make a collection as the first release did, with one passage."""
    client = await operator._connected()
    await client.collections.create(
        name,
        properties=[
            Property(name="document_id", data_type=DataType.TEXT, tokenization=Tokenization.FIELD),
            Property(name="chunk_index", data_type=DataType.INT),
            Property(name="document_name", data_type=DataType.TEXT, tokenization=Tokenization.FIELD),
            Property(name="page", data_type=DataType.INT),
            Property(name="text", data_type=DataType.TEXT, tokenization=Tokenization.WORD),
        ],
        vector_config=Configure.Vectors.self_provided(),
        multi_tenancy_config=Configure.multi_tenancy(enabled=True, auto_tenant_creation=False),
    )
    tenants = client.collections.use(name)
    await tenants.tenants.create([key])
    passage = {"document_id": str(uuid.uuid4()), "chunk_index": 0, "document_name": "old", "text": "Herr Müller"}
    await tenants.with_tenant(key).data.insert(passage, vector=VECTOR)
