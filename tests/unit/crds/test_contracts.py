"""Documents between the parts are canonical, versioned by content, and quiet about secrets."""

from __future__ import annotations

import msgspec

from assistant_crds import contracts


def policy(limit: int | None = 60) -> contracts.TenantPolicy:
    return contracts.TenantPolicy(
        tenant=contracts.TenantIdentity(namespace="acme", uid="u", key="t_0123456789"),
        generation="",
        models_allow=["*"],
        requests_per_minute=limit,
        assistants={
            name: contracts.AssistantPolicy(
                route=contracts.ModelRoute(
                    model="m", endpoint=contracts.Endpoint(url="https://llm.example/v1", api_key="hunter2")
                )
            )
            for name in ("b", "a")
        },
        knowledge_bases={},
    )


def test_equal_documents_are_equal_bytes_and_one_generation() -> None:
    """The order in which a mapping was filled does not matter."""
    one = policy()
    other = msgspec.structs.replace(one, assistants=dict(reversed(one.assistants.items())))
    assert contracts.encode(one) == contracts.encode(other)
    assert contracts.seal(one).generation == contracts.seal(other).generation


def test_a_changed_document_has_another_generation() -> None:
    """Any change shows in the generation, and sealing twice changes nothing."""
    sealed = contracts.seal(policy(60))
    assert contracts.seal(policy(61)).generation != sealed.generation
    assert contracts.seal(sealed) == sealed


def test_a_document_survives_the_wire_and_a_newer_writer() -> None:
    """What was encoded decodes to the same document; fields of a newer version are ignored."""
    sealed = contracts.seal(policy())
    raw = msgspec.json.decode(contracts.encode(sealed))
    raw["fromTheFuture"] = {"x": 1}
    assert msgspec.json.decode(msgspec.json.encode(raw), type=contracts.TenantPolicy) == sealed


def test_a_printed_policy_shows_no_key() -> None:
    """The representation, which may reach a log, masks the endpoint's key."""
    assert "hunter2" not in repr(policy())
    assert "***" in repr(policy())


def test_a_policy_from_before_there_were_fallbacks_has_none() -> None:
    """An older operator's document is still read, and a newer one's fallbacks hide their keys as well."""
    document = msgspec.json.decode(contracts.encode(policy()))
    for assistant in document["assistants"].values():
        del assistant["fallbacks"]
    old = msgspec.json.decode(msgspec.json.encode(document), type=contracts.TenantPolicy)
    assert old == policy()
    assert old.assistants["a"].fallbacks == []
    endpoint = contracts.Endpoint(url="https://llm.example/v1", api_key="hunter2")
    route = contracts.ModelRoute(model="m", endpoint=endpoint)
    assert "hunter2" not in repr(contracts.AssistantPolicy(route=route, fallbacks=[route]))
