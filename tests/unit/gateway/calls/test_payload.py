"""What of a request is checked, what is changed, and that everything else is passed on."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_crds.contracts import AssistantPolicy, EmbeddingPolicy, ModelRoute, TenantIdentity, TenantPolicy
from assistant_gateway.calls import payload
from assistant_gateway.errors import GatewayError
from assistant_gateway.metering import lengths
from assistant_gateway.providers.catalog import ROUTING_FIELDS, EmbeddingInputTypes, Provider, Target, target
from assistant_gateway.tenants.routing import ChatRoute, EmbeddingRoute, compile_policy
from assistant_gateway.wire.fields import encode_fields


def demo(url: str = "http://demo.example/v1", **settings: object) -> Target:
    """Return a provider."""
    return target("demo", Provider(url=url, **settings), None)


def chat_route(**fields: object) -> ChatRoute:
    """Return the route of an assistant whose policy has these fields."""
    assistant = AssistantPolicy(route=ModelRoute(model="real-model", provider="demo"), **fields)
    return compile_policy(tenant_policy({"support": assistant})).assistants["support"]


def embedding_route(dimensions: int) -> EmbeddingRoute:
    """Return the route of a knowledge base."""
    embedding = EmbeddingPolicy(route=ModelRoute(model="embed", provider="demo"), dimensions=dimensions)
    return compile_policy(tenant_policy({}, {"handbook": embedding})).knowledge_bases["handbook"]


def tenant_policy(assistants: dict, knowledge_bases: dict | None = None) -> TenantPolicy:
    """Return a policy that allows everything."""
    return TenantPolicy(
        tenant=TenantIdentity(namespace="acme", uid="u", key="t_1"),
        generation="g",
        models_allow=["*"],
        requests_per_minute=None,
        assistants=assistants,
        knowledge_bases=knowledge_bases or {},
    )


def encode(document: dict, route: ChatRoute, to: Target | None = None) -> dict:
    """Send a document through and return what the provider gets."""
    parsed = payload.parse(json.dumps(document).encode(), "messages")
    return json.loads(encode_fields(payload.chat(parsed).prepare(route, route.to, to or demo())))


CHAT = {"model": "support", "messages": [{"role": "user", "content": "Hi"}]}
DEFAULTS = {"temperature": 0.2, "top_p": 0.9, "max_output_tokens": 100}


def test_model_is_replaced_and_nothing_else() -> None:
    """Without defaults the provider gets the request as it was, under its own model's name."""
    assert encode({**CHAT, "tools": [{"a": None}], "x": "é"}, chat_route()) == {
        **CHAT,
        "model": "real-model",
        "tools": [{"a": None}],
        "x": "é",
    }


def test_defaults_fill_only_what_is_absent_or_null() -> None:
    """A request's own values win; null counts as absent."""
    sent = encode({**CHAT, "temperature": 1, "top_p": None}, chat_route(**DEFAULTS))
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (1, 0.9, 100)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_either_name_of_the_token_limit_is_respected(name: str) -> None:
    """A request that limits its output under one name gets no second limit under the other."""
    sent = encode({**CHAT, name: 5}, chat_route(**DEFAULTS))
    assert {field: value for field, value in sent.items() if field.startswith("max")} == {name: 5}


@pytest.mark.parametrize(
    ("to", "name"),
    [
        (demo(), "max_tokens"),
        (demo("https://api.openai.com/v1"), "max_completion_tokens"),
        (demo(max_tokens_field="max_completion_tokens"), "max_completion_tokens"),
    ],
)
def test_token_limit_goes_under_the_name_the_provider_knows(to: Target, name: str) -> None:
    """OpenAI's newer models refuse the old name, most other servers know only that one."""
    sent = encode({**CHAT, "max_tokens": None}, chat_route(max_output_tokens=7), to)
    assert {field: value for field, value in sent.items() if field.startswith("max")} == {name: 7}


@pytest.mark.parametrize("asked", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("wanted", ["max_tokens", "max_completion_tokens"])
def test_a_requests_own_limit_goes_under_the_only_name_that_a_provider_takes(asked: str, wanted: str) -> None:
    """Mistral refuses OpenAI's new name, which LangChain sends; others take it and do nothing."""
    sent = encode({**CHAT, wanted: None, asked: 5}, chat_route(**DEFAULTS), demo(max_tokens_field=wanted))
    assert {field: value for field, value in sent.items() if field.startswith("max")} == {wanted: 5}


@pytest.mark.parametrize(
    ("url", "name"), [("http://demo.example/v1", "max_tokens"), ("https://api.openai.com/v1", "max_completion_tokens")]
)
def test_of_two_limits_the_smaller_goes_out_under_the_providers_name(url: str, name: str) -> None:
    """Providers refuse both names together, and one that takes both may follow either."""
    for first, second in ((50, 70), (70, 50), (50, "70"), (50, None), (50, "x")):
        sent = encode({**CHAT, "max_tokens": first, "max_completion_tokens": second}, chat_route(), demo(url))
        if second is None:
            assert sent["max_tokens"] == 50
        else:
            assert {field: value for field, value in sent.items() if field.startswith("max")} == {name: 50}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Model",
            "MODEL",
            "Max_Tokens",
            "max_toKens".replace("K", "\u212a"),
            "me\u017f\u017fages",
            "maxTokens",
            "Stream",
        ),
        *("service-tier", "Service_Tier", "maxOutputTokens", "N", "N_Predict", "Models", "WEB_SEARCH_OPTIONS"),
    ],
)
def test_members_that_some_servers_take_for_another_are_refused(name: str) -> None:
    """Go and protobuf read names without regard to case; what was checked has to be what is read."""
    for value, required in (("messages", "messages"), ("input", "input")):
        raw = json.dumps({"model": "support", required: [value], name: 1}).encode()
        with pytest.raises(GatewayError) as raised:
            payload.parse(raw, required)
        assert (raised.value.status, raised.value.code, raised.value.param) == (400, "ambiguous_field", name)


def test_options_of_streams_are_written_anew() -> None:
    """Of a member that is there twice, or in two cases, only the one that was checked reaches the provider."""
    raw = (
        b'{"model": "support", "messages": [{}], "stream": true, "stream_options": '
        b'{"include_usage": false, "Include_Usage": false, "x": 1, "include_usage": true}}'
    )
    sent = encode_fields(payload.chat(payload.parse(raw, "messages")).prepare(chat_route(), chat_route().to, demo()))
    assert sent.lower().count(b"include_usage") == 1
    assert json.loads(sent)["stream_options"] == {"include_usage": True, "x": 1}


def test_usage_is_asked_for_in_streams_only() -> None:
    """A stream is asked for its usage unless the client does or the provider cannot."""
    route = chat_route()
    assert "stream_options" not in encode(CHAT, route)
    assert encode({**CHAT, "stream": True}, route)["stream_options"] == {"include_usage": True}
    options = {"include_usage": False, "other": 1}
    sent = encode({**CHAT, "stream": True, "stream_options": options}, route)
    assert sent["stream_options"] == {"include_usage": True, "other": 1}
    for asked in ({}, {"stream_options": {"include_usage": True}}):
        assert "stream_options" not in encode({**CHAT, "stream": True, **asked}, route, demo(stream_usage=False))


def test_dimensions_are_the_knowledge_bases() -> None:
    """Embeddings have the size that the knowledge base was made with; a provider that takes no size gets none."""
    body = payload.parse(b'{"model": "handbook", "input": ["a"], "dimensions": 3}', "input")
    route = embedding_route(8)
    assert json.loads(encode_fields(payload.embeddings(body, route, demo()))) == {
        "model": "embed",
        "input": ["a"],
        "dimensions": 8,
    }
    sent = json.loads(encode_fields(payload.embeddings(body, route, demo(embedding_dimensions=False))))
    assert sent == {"model": "embed", "input": ["a"]}


def test_a_provider_that_asks_is_told_a_question_from_a_passage() -> None:
    """In its own words, over what the caller says; of a call that belongs to no search nothing is said."""
    provider = demo(embedding_input_types=EmbeddingInputTypes(search="query", ingest="document"))
    body = payload.parse(b'{"model": "handbook", "input": ["a"], "input_type": "other"}', "input")

    def sent(purpose: str, target: Target) -> str:
        return json.loads(encode_fields(payload.embeddings(body, embedding_route(8), target, purpose)))["input_type"]

    assert [sent(purpose, provider) for purpose in ("search", "ingest", "other")] == ["query", "document", "other"]
    assert sent("search", demo()) == "other"
    translated = msgspec.structs.replace(provider, settings=msgspec.structs.replace(provider.settings, kind="cohere"))
    assert sent("search", translated) == "other"


def test_a_second_model_field_cannot_be_smuggled_through() -> None:
    """Of a field that is there twice only one survives: what was checked is what is sent."""
    raw = b'{"model": "support", "messages": [{}], "model": "support", "stream": false, "stream": true}'
    parsed = payload.chat(payload.parse(raw, "messages"))
    sent = encode_fields(parsed.prepare(chat_route(), chat_route().to, demo()))
    assert sent.count(b'"model"') == 1
    assert sent.count(b'"stream"') == 1
    assert parsed.stream is json.loads(sent)["stream"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(extra=st.dictionaries(st.text(min_size=1, max_size=8), json_values, max_size=5))
def test_unknown_fields_arrive_as_they_were(extra: dict) -> None:
    """Whatever else is in a request reaches the provider unchanged."""
    looked_at = ROUTING_FIELDS | {"stream", "stream_options"}
    known = {lengths.folded(name) for name in payload.KNOWN}
    extra = {
        name: value for name, value in extra.items() if lengths.folded(name) not in known and name not in looked_at
    }
    assert encode({**extra, **CHAT}, chat_route()) == {**extra, **CHAT, "model": "real-model"}


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode) | json_values.map(json.dumps).map(str.encode))
def test_no_body_at_all_makes_it_fall_over(raw: bytes) -> None:
    """Whatever comes in is served or refused with a 400; there is no third way."""
    assert status_of(raw) in {200, 400}


def status_of(raw: bytes) -> int:
    """Return 200 for a body that would be sent on, else the refusal's status."""
    try:
        route = chat_route(**DEFAULTS)
        payload.chat(payload.parse(raw, "messages")).prepare(route, route.to, demo())
    except GatewayError as error:
        return error.status
    return 200


def test_refusal_does_not_repeat_the_body() -> None:
    """What a person wrote is not put into an error, which may be logged."""
    with pytest.raises(GatewayError) as raised:
        payload.chat(payload.parse(b'{"model": "support", "messages": "very private"}', "messages"))
    assert "private" not in raised.value.message
    assert raised.value.param == "messages"
    assert msgspec.json.decode(raised.value.body())["error"]["param"] == "messages"


@pytest.mark.parametrize("name", sorted(ROUTING_FIELDS))
def test_request_cannot_name_other_models_or_providers(name: str) -> None:
    """A field that could get round the tenant's models or their prices is refused by name, also when it is escaped."""
    field = "".join(f"\\u{ord(char):04x}" for char in name)
    raw = f'{{"model": "support", "messages": [{{}}], "{field}": ["a/b"]}}'.encode()
    with pytest.raises(GatewayError) as raised:
        payload.chat(payload.parse(raw, "messages")).prepare(chat_route(), chat_route().to, demo())
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, "field_not_allowed", name)
    assert "providers.demo.allowFields" in raised.value.message
    with pytest.raises(GatewayError):
        payload.embeddings(payload.parse(raw, "messages"), embedding_route(8), demo())


def test_catalogue_allows_routing_fields_by_name() -> None:
    """What the platform team allows for a provider is passed on as it was written, the others stay refused."""
    to = demo(allow_fields=frozenset({"provider"}))
    order = {"order": ["groq"], "allow_fallbacks": False}
    assert encode({**CHAT, "provider": order}, chat_route(), to)["provider"] == order
    with pytest.raises(GatewayError, match="'plugins'"):
        encode({**CHAT, "provider": order, "plugins": []}, chat_route(), to)


def test_own_server_is_sent_what_its_tenant_writes() -> None:
    """A tenant's own endpoint is its own bill: nothing is kept from it."""
    own = target("endpoint", Provider(url="http://llm.acme.example/v1"), None, own=True)
    assert encode({**CHAT, "models": ["b"]}, chat_route(), own)["models"] == ["b"]
