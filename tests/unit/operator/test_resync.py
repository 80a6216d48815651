"""The full list finds every tenant, whatever the watches missed."""

from types import SimpleNamespace

from operator_objects import assistant, knowledge_base, tenant

from assistant_crds import naming
from assistant_operator.liveness import Liveness
from assistant_operator.resync import Resync


class Cluster:
    def __init__(self, **found):
        self.found = found

    async def list(self, kind, namespace, labels=None):
        return self.found.get(kind, [])


async def test_resources_tenants_and_records_name_their_namespaces():
    """A namespace with resources, with a Tenant alone, or of which only a record is left: all are looked at."""
    record = {"metadata": {"name": "policy-t-1", "labels": {naming.LABEL_TENANT: "gone"}}}
    base = knowledge_base()
    base["metadata"]["namespace"] = "books"
    alone = tenant()
    alone["metadata"]["name"] = "alone"
    cluster = Cluster(Assistant=[assistant()], KnowledgeBase=[base], Tenant=[alone], Secret=[record, {"metadata": {}}])
    context = SimpleNamespace(cluster=cluster, settings=SimpleNamespace(routes_namespace="routes"))
    resync = Resync(context, lambda namespace, delay: None, Liveness(300))
    assert await resync.namespaces() == {"acme", "books", "alone", "gone"}
