"""Documents are read again when the annotation of their knowledge base asks for it."""

from types import SimpleNamespace

from operator_objects import knowledge_base, resolved

from assistant_crds import naming
from assistant_operator.errors import StoreUnreachableError
from assistant_operator.reconcile.knowledge import REINDEX_LENGTH, reindex


class Postgres:
    """Notes what it is asked for."""

    def __init__(self, error=None):
        self.asked = []
        self.error = error

    async def reindex(self, tenant, key):
        self.asked.append((tenant, key))
        if self.error:
            raise self.error
        return 3


async def run(annotation=None, acted_on=None, error=None):
    raw = knowledge_base()
    if annotation is not None:
        raw["metadata"]["annotations"] = {naming.ANNOTATION_REINDEX: annotation}
    raw["status"] = {"reindexed": acted_on} if acted_on else {}
    bases = resolved(raw).served_knowledge_bases()
    postgres = Postgres(error)
    done = await reindex("t_1", bases, SimpleNamespace(postgres=postgres))
    assert all(asked == ("t_1", bases[0].key) for asked in postgres.asked)
    return len(postgres.asked), list(done.values())


async def test_each_value_of_the_annotation_is_acted_on_once():
    """What the status tells of is done; a new value is not; without one nothing is done."""
    assert await run() == (0, [])
    assert await run("monday") == (1, ["monday"])
    assert await run("monday", "monday") == (0, [])
    assert await run("tuesday", "monday") == (1, ["tuesday"])
    assert await run("x" * 9999) == (1, ["x" * REINDEX_LENGTH])
    assert await run("x" * 9999, "x" * REINDEX_LENGTH) == (0, [])


async def test_a_database_that_is_away_is_asked_again():
    """Nothing stands in the status before it has been done."""
    assert await run("monday", error=StoreUnreachableError("postgres", "away")) == (1, [])
