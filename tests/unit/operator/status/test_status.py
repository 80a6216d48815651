"""What a status says follows from what was resolved and observed, and from nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_objects import NOW, assistant, deployment, knowledge_base, own_endpoint, pod, resolved, snapshot, tenant

from assistant_crds import naming
from assistant_crds.conditions import (
    ASSISTANT_CONDITIONS,
    KNOWLEDGE_BASE_CONDITIONS,
    TENANT_CONDITIONS,
    ConditionType,
    Reason,
)
from assistant_crds.contracts import ModelProbe, TenantProbe
from assistant_operator import status
from assistant_operator.tenant.generations import Generations
from assistant_operator.tenant.observation import Counts, GatewayView, Observation, PodReadiness, StoreView
from assistant_operator.tenant.state import Tenant

LATER = "2026-11-23T13:00:00Z"
REACHABLE = ModelProbe(reachable=True, reason="Reachable", message="It answers.")


def answer(*, ready, generation):
    return PodReadiness("p", in_service=True, ready=ready, generation=generation)


def observation(**changes):
    probe = TenantProbe(generation="p1", assistants={"support": REACHABLE}, knowledge_bases={"handbook": REACHABLE})
    values = {
        "config_generation": "c1",
        "policy_generation": "p1",
        "gateway": GatewayView(probe),
        "pods": [PodReadiness("assistant-api-1", in_service=True, ready=True, generation="c1")],
        "stores": StoreView(),
        "counts": {},
    }
    return Observation(**(values | changes))


RUNNING = {
    ("Deployment", naming.API): deployment(),
    ("Deployment", naming.WORKER): deployment(naming.WORKER),
}


def of_assistant(*resources, seen=None, owned=None, pods=None, now=NOW, **changes):
    view = snapshot(*resources, owned=RUNNING if owned is None else owned, pods=pods or [pod()])
    found = resolved(*resources, **changes)
    return status.assistant(found.assistants[0], Tenant(view, found, seen or observation()), now)


def of_base(*resources, seen=None, owned=None, now=NOW):
    view = snapshot(*resources, owned=RUNNING if owned is None else owned, pods=[pod()])
    found = resolved(*resources)
    return status.knowledge_base(found.knowledge_bases[0], Tenant(view, found, seen or observation()), now)


def condition(document, kind):
    return next(item for item in document["conditions"] if item["type"] == kind)


def told(document, kind):
    found = condition(document, kind)
    return found["status"], found["reason"]


def test_everything_well_is_ready():
    """All conditions of the kind are there, in order, true, and Ready sums them up."""
    document = of_assistant(assistant())
    assert [item["type"] for item in document["conditions"]] == ["Ready", *ASSISTANT_CONDITIONS]
    assert {item["status"] for item in document["conditions"]} == {"True"}
    assert document["url"] == "http://assistant-api.acme.svc:8080/v1"
    assert (document["model"], document["limit"]) == ("demo/m", "600/min")
    assert document["replicas"] == {"ready": 1, "desired": 1}
    assert document["observedGeneration"] == 1


def test_a_knowledge_base_has_its_own_conditions_and_counts():
    """Counts come from both stores; vectors that no document accounts for are orphans."""
    key = resolved(knowledge_base()).knowledge_bases[0].key
    counts = {key: Counts(documents=2, pending=0, failed=1, chunks=5, vectors=7)}
    document = of_base(knowledge_base(), seen=observation(counts=counts))
    assert [item["type"] for item in document["conditions"]] == ["Ready", *KNOWLEDGE_BASE_CONDITIONS, "IndexCurrent"]
    assert condition(document, "Ready")["status"] == "True"
    names = ("documents", "pending", "failed", "vectors", "orphans")
    assert [document[name] for name in names] == [2, 0, 1, 7, 2]


@pytest.mark.parametrize(("outdated", "status", "reason"), [(0, "True", "Current"), (3, "False", "IndexOutdated")])
def test_documents_of_an_earlier_version_are_told_with_the_next_step(outdated, status, reason):
    """They are counted, and a condition says how to have them read again; the knowledge base is Ready all the same."""
    key = resolved(knowledge_base()).knowledge_bases[0].key
    counts = {key: Counts(documents=4, pending=0, failed=0, chunks=5, vectors=5, outdated=outdated)}
    document = of_base(knowledge_base(), seen=observation(counts=counts))
    assert document["outdated"] == outdated
    assert told(document, "IndexCurrent") == (status, reason)
    assert ("kubectl annotate knowledgebase handbook" in condition(document, "IndexCurrent")["message"]) == bool(
        outdated
    )
    assert condition(document, "Ready")["status"] == "True"


def test_an_annotation_that_was_acted_on_stands_in_the_status():
    """It stays there until another one is acted on."""
    key = resolved(knowledge_base()).knowledge_bases[0].key
    document = of_base(knowledge_base(), seen=observation(reindexed={key: "monday"}))
    assert document["reindexed"] == "monday"
    assert of_base(knowledge_base() | {"status": document})["reindexed"] == "monday"
    assert "reindexed" not in of_base(knowledge_base())


def test_orphans_are_not_judged_while_documents_are_written():
    """Between the two counts a document may have been half written: the last settled figure stays."""
    raw = knowledge_base() | {"status": {"orphans": 1}}
    key = resolved(raw).knowledge_bases[0].key
    counts = {key: Counts(documents=2, pending=1, failed=0, chunks=5, vectors=9)}
    assert of_base(raw, seen=observation(counts=counts))["orphans"] == 1


def test_counts_that_could_not_be_taken_keep_their_last_values():
    """A store that is away does not make documents disappear from the status."""
    raw = knowledge_base() | {"status": {"documents": 3, "vectors": 9}}
    document = of_base(raw)
    assert (document["documents"], document["vectors"]) == (3, 9)
    assert "pending" not in document


@pytest.mark.parametrize(
    ("seen", "kind", "reason"),
    [
        ({"gateway": GatewayView(None, "no connection.")}, "ModelReachable", "GatewayUnreachable"),
        ({"gateway": GatewayView(None, "no connection.")}, "QuotaSynced", "GatewayUnreachable"),
        ({"stores": StoreView({"redis": "it does not answer."})}, "QuotaSynced", "StoreUnreachable"),
        (
            {"pods": [PodReadiness("p", in_service=True, ready=False, generation="")]},
            "EndpointAnswering",
            "NotAnswering",
        ),
        (
            {"pods": [PodReadiness("p", in_service=True, ready=True, generation="c0")]},
            "EndpointAnswering",
            "StaleConfiguration",
        ),
        ({"apply_error": "Service x was refused."}, "WorkloadAvailable", "ApplyFailed"),
        (
            {
                "gateway": GatewayView(
                    TenantProbe(
                        generation="p1",
                        assistants={"support": ModelProbe(reachable=False, reason="ModelUnknown", message="No.")},
                        knowledge_bases={},
                    )
                )
            },
            "ModelReachable",
            "ModelUnknown",
        ),
    ],
)
def test_each_fault_has_its_condition(seen, kind, reason):
    """The condition is False with its reason, and Ready repeats it."""
    document = of_assistant(assistant(), seen=observation(**seen))
    assert told(document, kind) == ("False", reason)
    assert condition(document, "Ready")["status"] == "False"
    assert condition(document, "Ready")["message"]


def test_a_policy_that_is_not_loaded_yet_is_waited_for():
    """Before the gateway has the policy nothing is known of quota and model."""
    probe = TenantProbe(generation="p0", assistants={"support": REACHABLE}, knowledge_bases={})
    document = of_assistant(assistant(), seen=observation(gateway=GatewayView(probe)))
    assert told(document, "QuotaSynced") == ("Unknown", "Waiting")
    assert told(document, "ModelReachable") == ("Unknown", "Waiting")
    assert told(document, "Ready") == ("False", "Waiting")


def test_a_pod_that_only_just_started_is_no_fault_while_others_serve():
    """During a roll-out the endpoint answers; alone, a starting pod is not ready to serve yet."""
    starting = PodReadiness("assistant-api-2", in_service=False, ready=False, generation="", detail="gateway: timeout")
    serving = PodReadiness("assistant-api-1", in_service=True, ready=True, generation="c1")
    both = of_assistant(assistant(), seen=observation(pods=[serving, starting]))
    assert told(both, "EndpointAnswering") == ("True", "Answering")
    alone = of_assistant(assistant(), seen=observation(pods=[starting]))
    assert told(alone, "EndpointAnswering") == ("False", "NotAnswering")
    assert "gateway: timeout" in condition(alone, "EndpointAnswering")["message"]


def test_an_unknown_reason_of_a_newer_gateway_is_still_a_fault():
    """A reason that this operator does not know is told as unreachable."""
    probe = TenantProbe(
        generation="p1",
        assistants={"support": ModelProbe(reachable=False, reason="MadeOfCheese", message="It is cheese.")},
        knowledge_bases={},
    )
    document = of_assistant(assistant(), seen=observation(gateway=GatewayView(probe)))
    assert told(document, "ModelReachable") == ("False", "ProviderUnreachable")
    assert condition(document, "ModelReachable")["message"] == "It is cheese."


def test_what_follows_from_a_refused_resource_waits():
    """When a resource is not accepted, what cannot be known because of that says so; Ready gives the cause."""
    document = of_assistant(assistant(model={"provider": "nobody", "name": "m"}))
    assert told(document, "Accepted") == ("False", "ProviderUnknown")
    for kind in ("RefsResolved", "ModelReachable", "KnowledgeReady", "QuotaSynced", "EndpointAnswering"):
        assert told(document, kind) == ("Unknown", "Waiting")
    assert told(document, "Ready") == ("False", "ProviderUnknown")


def test_a_false_condition_is_told_before_an_unknown_one():
    """Ready gives the cause, not what waits for it."""
    document = of_assistant(assistant(model=own_endpoint()), seen=observation(pods=[]))
    assert told(document, "Ready") == ("False", "SecretNotFound")


def test_an_assistant_shows_what_is_wrong_with_its_knowledge():
    """The assistant names the knowledge base and repeats its fault; a store that is down is named itself."""
    resources = (assistant(knowledgeBases=[{"name": "handbook"}]), knowledge_base())
    down = of_assistant(*resources, seen=observation(stores=StoreView({"weaviate": "it does not answer."})))
    assert told(down, "KnowledgeReady") == ("False", "StoreUnreachable")
    assert "Store weaviate" in condition(down, "KnowledgeReady")["message"]

    away = ModelProbe(reachable=False, reason="ProviderUnreachable", message="No answer.")
    probe = TenantProbe(generation="p1", assistants={"support": REACHABLE}, knowledge_bases={"handbook": away})
    unready = of_assistant(*resources, seen=observation(gateway=GatewayView(probe)))
    assert told(unready, "KnowledgeReady") == ("False", "KnowledgeBaseNotReady")
    assert condition(unready, "KnowledgeReady")["message"] == "KnowledgeBase handbook is not ready: No answer."

    refused = of_assistant(
        assistant(knowledgeBases=[{"name": "handbook"}]),
        knowledge_base(embedding={"provider": "nobody", "name": "e", "dimensions": 16}),
    )
    assert told(refused, "KnowledgeReady") == ("False", "KnowledgeBaseNotReady")
    assert told(refused, "Ready") == ("False", "KnowledgeBaseNotReady")


def test_stores_matter_to_an_assistant_only_for_what_it_uses():
    """Without knowledge bases a vector store that is down is no fault of the assistant."""
    document = of_assistant(assistant(), seen=observation(stores=StoreView({"weaviate": "it does not answer."})))
    assert condition(document, "Ready")["status"] == "True"


def test_pods_wait_for_credentials_at_first():
    """A new tenant whose stores are away has no pods yet; the status says what they wait for."""
    seen = observation(stores=StoreView({"weaviate": "it does not answer."}), pods=[])
    document = of_assistant(assistant(), seen=seen, owned={})
    assert told(document, "WorkloadAvailable") == ("Unknown", "Waiting")
    assert "weaviate" in condition(document, "WorkloadAvailable")["message"]


def test_a_transition_keeps_its_time_until_it_changes():
    """Only a condition whose status changed gets a new time."""
    first = of_assistant(assistant())
    raw = assistant() | {"status": first}
    second = of_assistant(raw, seen=observation(pods=[]), now=LATER)
    assert condition(second, "Accepted")["lastTransitionTime"] == NOW
    assert condition(second, "EndpointAnswering")["lastTransitionTime"] == LATER
    assert condition(second, "Ready")["lastTransitionTime"] == LATER


def test_the_same_status_is_recognised_whatever_the_time():
    """Nothing is written when nothing but times would change; a new message is a change."""
    first = of_assistant(assistant())
    assert status.same(of_assistant(assistant(), now=LATER), first)
    assert not status.same(of_assistant(assistant(), seen=observation(pods=[])), first)
    assert not status.same(first, None)


def test_figures_alone_are_told_apart():
    """While documents are ingested only figures change: that needs no further look, a condition does."""
    before = of_base(knowledge_base() | {"status": {"documents": 1, "pending": 3}})
    after = before | {"documents": 2, "vectors": 9}
    assert not status.same(after, before)
    assert status.same_but_figures(after, before)
    assert not status.same_but_figures(after | {"model": "other"}, before)
    assert not status.same_but_figures(after, None)


def test_a_tenant_sums_up_its_namespace():
    """Counts of resources, the limit and the conditions that apply to it."""
    view = snapshot(assistant(), knowledge_base(), owned=RUNNING, pods=[pod()])
    found = resolved(assistant(), knowledge_base(), tenant=tenant(limits={"requestsPerMinute": 9}))
    document = status.tenant(tenant(), Tenant(view, found, observation()), NOW)
    assert [item["type"] for item in document["conditions"]] == ["Ready", *TENANT_CONDITIONS]
    assert (document["assistants"], document["knowledgeBases"], document["limit"]) == (1, 1, "9/min")
    assert condition(document, "Ready")["status"] == "True"


def test_an_idle_tenant_says_what_it_waits_for():
    """A Tenant whose namespace holds nothing is not Ready, and tells what to create."""
    found = resolved(assistant())
    document = status.idle_tenant(tenant(), found.settings, NOW)
    assert told(document, "Accepted") == ("True", "Accepted")
    assert told(document, "Ready") == ("False", "Waiting")
    message = condition(document, "Ready")["message"]
    assert "create one" in message
    assert "Namespace acme does not exist, or" in message  # a typo in the Tenant's name: its limits hold for nobody
    assert (document["assistants"], document["knowledgeBases"]) == (0, 0)


def test_deletion_is_told_without_touching_the_rest():
    """A resource that waits for its deletion keeps its other conditions and figures."""
    before = of_assistant(assistant())
    document = status.deleting(assistant() | {"status": before}, "Waits for pod p to end.", LATER)
    assert told(document, "Ready") == ("False", "Deleting")
    assert document["conditions"][1:] == before["conditions"][1:]
    assert document["url"] == before["url"]


flags = st.booleans()


@given(flags, flags, flags, flags, flags)
def test_ready_is_true_exactly_when_all_others_are(served, synced, up, answering, stores):
    """There is no way to be Ready with a condition that is not true, nor to be unready with all of them true."""
    resources = [assistant(knowledgeBases=[{"name": "handbook"}])] + ([knowledge_base()] if served else [])
    probe = TenantProbe(
        generation="p1" if synced else "p0", assistants={"support": REACHABLE}, knowledge_bases={"handbook": REACHABLE}
    )
    seen = observation(
        gateway=GatewayView(probe),
        pods=[answer(ready=answering, generation="c1")],
        stores=StoreView({} if stores else {"postgres": "down."}),
    )
    owned = RUNNING | {("Deployment", naming.API): deployment(available=1 if up else 0)}
    document = of_assistant(*resources, seen=seen, owned=owned)
    others = [item["status"] for item in document["conditions"] if item["type"] != ConditionType.READY]
    assert (condition(document, "Ready")["status"] == "True") == all(other == "True" for other in others)
    assert all(item["message"] for item in document["conditions"])
    assert {item["reason"] for item in document["conditions"]} <= {reason.value for reason in Reason}


FALLBACKS = {"provider": "demo", "name": "m", "fallbacks": [{"provider": "demo", "name": "n"}]}


def told_of_fallbacks(*found, model=None):
    probe = ModelProbe(reachable=True, reason="Reachable", message="It answers.", fallbacks=list(found))
    gateway = GatewayView(TenantProbe(generation="p1", assistants={"support": probe}, knowledge_bases={}))
    return of_assistant(assistant(model=model or FALLBACKS), seen=observation(gateway=gateway))


def test_a_fallback_that_would_not_answer_is_told_beside_ready():
    """The assistant answers by its model; that its fallback never would is a condition of its own."""
    message = "No price is known for demo/n."
    document = told_of_fallbacks(ModelProbe(reachable=False, reason="PriceUnknown", message=message, model="demo/n"))
    assert told(document, "FallbacksUsable") == ("False", "PriceUnknown")
    assert message in condition(document, "FallbacksUsable")["message"]
    assert told(document, "Ready") == ("True", "Ready")


def test_fallbacks_that_answer_are_told_and_none_is_not():
    """The condition is there for assistants with fallbacks only."""
    assert told(told_of_fallbacks(REACHABLE), "FallbacksUsable") == ("True", "Reachable")
    assert "FallbacksUsable" not in {item["type"] for item in of_assistant(assistant())["conditions"]}


@pytest.mark.parametrize(("provider", "name", "of"), [("demo", "m", "the model itself"), ("demo", "n", "fallback 1")])
def test_a_fallback_that_is_there_twice_is_told(provider, name, of):
    """What is asked already cannot help when it failed."""
    model = FALLBACKS | {"fallbacks": [*FALLBACKS["fallbacks"], {"provider": provider, "name": name}]}
    document = told_of_fallbacks(REACHABLE, REACHABLE, model=model)
    assert told(document, "FallbacksUsable") == ("False", "DuplicateFallback")
    assert f"Fallback 2 is the same as {of}" in condition(document, "FallbacksUsable")["message"]


def test_an_unknown_price_makes_it_not_ready():
    """Every call would be refused."""
    probe = ModelProbe(reachable=False, reason="PriceUnknown", message="No price is known for demo/m.")
    gateway = GatewayView(TenantProbe(generation="p1", assistants={"support": probe}, knowledge_bases={}))
    document = of_assistant(assistant(), seen=observation(gateway=gateway))
    assert told(document, "ModelReachable") == ("False", "PriceUnknown")
    assert told(document, "Ready") == ("False", "PriceUnknown")


def generations(**parts):
    found = Generations()
    for generation, known in parts.items():
        found.put(generation, lambda known=known: known)
    return found


def test_a_change_of_one_resource_does_not_touch_another():
    """Pods and gateway that have all but a sibling's change serve this resource as it is wanted."""
    old = PodReadiness("assistant-api-1", in_service=True, ready=True, generation="c0")
    probe = TenantProbe(generation="p0", assistants={"support": REACHABLE}, knowledge_bases={"handbook": REACHABLE})
    same = {"Assistant/support": "1", "KnowledgeBase/handbook": "2", "": "3"}
    known = {
        "configs": generations(c0=same | {"Assistant/other": "0"}, c1=same | {"Assistant/other": "1"}),
        "policies": generations(p0=same | {"Assistant/other": "0"}, p1=same | {"Assistant/other": "1"}),
    }
    seen = observation(pods=[old], gateway=GatewayView(probe), **known)
    resources = (assistant(), assistant("other"), knowledge_base())
    view, found = snapshot(*resources, owned=RUNNING, pods=[pod()]), resolved(*resources)
    other, support = (status.assistant(item, Tenant(view, found, seen), NOW) for item in found.assistants)
    assert told(support, "Ready") == ("True", "Ready")
    assert told(other, "EndpointAnswering") == ("False", "StaleConfiguration")
    assert told(other, "QuotaSynced") == ("Unknown", "Waiting")
    base = status.knowledge_base(found.knowledge_bases[0], Tenant(view, found, seen), NOW)
    assert told(base, "Ready") == ("True", "Ready")
    of_tenant = status.tenant(tenant(), Tenant(view, found, seen), NOW)
    assert told(of_tenant, "Ready") == ("True", "Ready")


def test_a_service_that_lets_nobody_through_is_told():
    """Pods that answer are not enough: clients come through the Service."""
    document = of_assistant(assistant(), seen=observation(service_error="no connection."))
    assert told(document, "EndpointAnswering") == ("False", "NotAnswering")
    message = condition(document, "EndpointAnswering")["message"]
    assert "Service assistant-api" in message
    assert "no connection." in message
    assert told(document, "Ready") == ("False", "NotAnswering")


@pytest.mark.parametrize(
    ("resources", "seen"),
    [
        ([assistant(model={"provider": "nobody", "name": "m"})], {}),
        ([assistant(model=own_endpoint())], {}),
        ([assistant()], {"gateway": GatewayView(None, "no connection.")}),
        ([assistant()], {"gateway": GatewayView(None)}),
        ([assistant(knowledgeBases=[{"name": "handbook"}]), knowledge_base(embedding={"provider": "x"})], {}),
    ],
)
def test_a_cause_is_told_once(resources, seen):
    """Of all conditions but the summary one gives the cause, and no two say the same."""
    messages = [item["message"] for item in of_assistant(*resources, seen=observation(**seen))["conditions"]]
    assert len(set(messages[1:])) == len(messages[1:])
    assert sum(messages[0] in message for message in messages[1:]) == 1


def test_an_overloaded_operator_blames_no_store():
    """When no store answers it in time, all at once, the condition speaks of the operator and does not know more."""
    errors = dict.fromkeys(("postgres", "redis", "weaviate"), "no store answers the operator in time, all at once.")
    document = of_assistant(assistant(), seen=observation(stores=StoreView(errors, overloaded=90.0)))
    assert told(document, "QuotaSynced") == ("Unknown", "OperatorOverloaded")
    assert "the operator itself is overloaded" in condition(document, "QuotaSynced")["message"]
    assert "StoreUnreachable" not in {item["reason"] for item in document["conditions"]}
