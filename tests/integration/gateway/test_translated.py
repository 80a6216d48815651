"""Providers that do not speak the OpenAI wire: through the whole gateway, against servers that speak theirs."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
import yaml
from gateway_world import PLATFORM, Cluster, Running, identity, running, until_still
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from native_provider import AWS_ID, AWS_SECRET, AWS_TOKEN, KEY, WORDS, Native, native_provider
from pydantic import SecretStr
from redis.asyncio import Redis as Client

from assistant_crds import naming
from assistant_crds.contracts import AssistantPolicy, Budget, EmbeddingPolicy, ModelRoute, TenantPolicy
from assistant_gateway.config import Settings
from assistant_gateway.ledger.entry import LedgerEntry, decode_entry
from assistant_gateway.providers import error_mapping, litellm_request, openai_wire, transport
from assistant_gateway.providers import litellm as translation
from assistant_gateway.providers.catalog import ROUTING_FIELDS, Target
from assistant_gateway.providers.litellm_response import TranslatedAnswer

MODELS = {
    "anthropic": "claude-haiku-4-5",
    "gemini": "gemini-2.5-flash",
    "bedrock": "anthropic.claude-haiku-4-5-20251001-v1:0",
    "cohere": "command-a-03-2025",
}
ENTRIES = {  # as the families' native answers give: tests/unit/gateway/wire/recorded/cases.yaml
    "anthropic": {"input": 1321, "cached": 1000, "cache_write": 300, "output": 15, "reasoning": 0},
    "gemini": {"input": 49, "cached": 5, "cache_write": 0, "output": 66, "reasoning": 63},
    "bedrock": {"input": 1130, "cached": 1000, "cache_write": 100, "output": 628, "reasoning": 0},
    "cohere": {"input": 5, "cached": 0, "cache_write": 0, "output": 418, "reasoning": 0},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
ZONE = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5"
    "ErkJggg=="
)
NAMESPACE = "translated"


@pytest.fixture
async def native() -> AsyncIterator[Native]:
    """The four servers."""
    async with native_provider() as state:
        yield state


@pytest.fixture
def settings(settings: Callable[..., Settings], native: Native) -> Callable[..., Settings]:
    """Settings whose catalogue has one provider of each kind, with short time-outs and prices."""

    def make(**changes: object) -> Settings:
        made = settings(**changes)
        keys = made.provider_keys_dir
        (keys / "native").write_text(KEY)
        aws = {
            "accessKeyId": AWS_ID,
            "secretAccessKey": AWS_SECRET,
            "sessionToken": AWS_TOKEN,
            "region": "eu-central-1",
        }
        (keys / "aws").write_text(json.dumps(aws))
        (keys / "wrong").write_text("sk-wrong-0123456789abcdef")
        price = {"inputPerMillion": "10", "outputPerMillion": "20", "maxImageTokens": 1600}
        times = {"connectSeconds": 1, "firstByteSeconds": 3, "idleSeconds": 1, "models": {"*": price}}
        providers = {
            kind: {"kind": kind, "url": native.url, "keyRef": "aws" if kind == "bedrock" else "native", **times}
            for kind in MODELS
        }
        providers |= {f"{kind}-wrong": {**providers[kind], "keyRef": "wrong"} for kind in ("anthropic", "gemini")}
        providers["anthropic-gone"] = {**providers["anthropic"], "url": "http://127.0.0.1:9"}
        made.catalog_file.write_text(yaml.safe_dump({"providers": providers}))
        return made

    return make


class Tenant:
    """A tenant with one assistant per provider, and its books."""

    def __init__(self, cluster: Cluster, gateway: Running) -> None:
        self.cluster, self.gateway = cluster, gateway
        self.key = naming.tenant_key(NAMESPACE)
        self.headers = {"Authorization": f"Bearer {cluster.token(NAMESPACE)}"}
        self.client = openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=cluster.token(NAMESPACE), max_retries=0, timeout=60
        )

    async def put(self) -> None:
        """Write the policy and wait until the gateway follows it."""
        names = {**MODELS, **{f"{kind}-wrong": MODELS[kind] for kind in ("anthropic", "gemini")}}
        names["anthropic-gone"] = MODELS["anthropic"]
        routes = {name: ModelRoute(model=model, provider=name) for name, model in names.items()}
        routes["nova"] = ModelRoute(model="amazon.nova-pro-v1:0", provider="bedrock")
        bases = {"cohere": ("embed-v4.0", "cohere"), "gemini": ("gemini-embedding-001", "gemini")}
        bases |= {"anthropic": ("none", "anthropic"), "bedrock": ("amazon.titan-embed-text-v2:0", "bedrock")}
        sealed = self.cluster.put_policy(
            TenantPolicy(
                tenant=identity(NAMESPACE),
                generation="",
                models_allow=["*"],
                requests_per_minute=None,
                budget=Budget(amount_micros=10**9, currency="USD", period="Day"),
                assistants={name: AssistantPolicy(route=route) for name, route in routes.items()},
                knowledge_bases={
                    name: EmbeddingPolicy(route=ModelRoute(model=model, provider=provider), dimensions=2)
                    for name, (model, provider) in bases.items()
                },
            )
        )
        async with asyncio.timeout(20):
            while (await self.probe()).get("generation") != sealed.generation:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def probe(self) -> dict[str, Any]:
        """Return what the operator is told."""
        headers = {"Authorization": f"Bearer {self.cluster.token(PLATFORM, naming.MANAGED_BY)}"}
        url = f"{self.gateway.url}/internal/v1/tenants/{NAMESPACE}/probe"
        async with self.gateway.client.get(url, headers=headers) as answer:
            return await answer.json()

    def ask(self, name: str, what: str, **fields: Any):
        """Send a chat request; leave with `async with`."""
        body = {"model": name, "messages": [{"role": "user", "content": what}], **fields}
        return self.gateway.client.post(f"{self.gateway.url}/v1/chat/completions", json=body, headers=self.headers)

    async def refused(self, name: str, what: str, **fields: Any) -> tuple[int, str, str]:
        """Send a request that fails; return status, code and the whole answer."""
        async with self.ask(name, what, **fields) as answer:
            body = await answer.text()
            return answer.status, json.loads(body)["error"]["code"], body

    async def count(self) -> int:
        """Return how many entries the ledger has."""
        async with Client.from_url(self.gateway.settings.redis_url, protocol=2, driver_info=None) as redis:
            return await redis.xlen(f"quota:{{{self.key}}}:ledger")

    async def entry(self, before: int) -> LedgerEntry:
        """Return the entry after so many, when it is there."""
        async with Client.from_url(self.gateway.settings.redis_url, protocol=2, driver_info=None) as redis:
            async with asyncio.timeout(30):
                while await redis.xlen(f"quota:{{{self.key}}}:ledger") <= before:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            found = await redis.xrange(f"quota:{{{self.key}}}:ledger")
        return decode_entry(found[-1][1][b"entry"])


@pytest.fixture
async def tenant(settings: Callable[..., Settings], cluster: Cluster) -> AsyncIterator[Tenant]:
    """A tenant of a gateway that is ready."""
    async with running(settings()) as gateway:
        made = Tenant(cluster, gateway)
        await made.put()
        yield made
        await made.client.close()


def assert_charged(entry: LedgerEntry, kind: str) -> None:
    """Compare an entry with what the family's native answer gives, and its cost with the price."""
    wanted = ENTRIES[kind]
    assert {name: getattr(entry, name) for name in wanted} == wanted
    assert (entry.source, entry.disputed) == ("reported", False)
    assert entry.cost == 10 * wanted["input"] + 20 * wanted["output"]


@pytest.mark.parametrize("kind", MODELS)
async def test_whole_answers(tenant: Tenant, native: Native, kind: str) -> None:
    """A chat comes back on OpenAI's wire, and its entry is that of the native answer."""
    before = await tenant.count()
    answer = await tenant.client.chat.completions.create(
        model=kind, messages=[{"role": "system", "content": "Be kind. " * 300}, {"role": "user", "content": "good"}]
    )
    assert answer.choices[0].message.content == "".join(WORDS)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert not answer.choices[0].message.model_extra  # nothing of LiteLLM's own
    assert "Be kind." in json.dumps(native.bodies[-1])
    assert_charged(await tenant.entry(before), kind)


@pytest.mark.parametrize("what", ["good", "bytewise", "paced"])
@pytest.mark.parametrize("kind", MODELS)
async def test_streams(tenant: Tenant, kind: str, what: str) -> None:
    """Each piece is one event, in order, however it arrives; the entry is the same."""
    before = await tenant.count()
    stream = await tenant.client.chat.completions.create(
        model=kind,
        messages=[{"role": "system", "content": "Be kind. " * 300}, {"role": "user", "content": what}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert [text for chunk in chunks for choice in chunk.choices if (text := choice.delta.content)] == WORDS
    assert [f for chunk in chunks for choice in chunk.choices if (f := choice.finish_reason)] == ["stop"]
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert_charged(await tenant.entry(before), kind)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", MODELS)
async def test_tools_and_their_results(tenant: Tenant, native: Native, kind: str, stream: bool) -> None:
    """A tool call comes back with its arguments; its result and the call go to the provider in its own words."""
    asked: list[Any] = [{"role": "user", "content": "tool"}]
    calls: dict[int, dict[str, str]] = {}
    answer = await tenant.client.chat.completions.create(model=kind, messages=asked, tools=TOOLS, stream=stream)
    if stream:
        finish = None
        async for chunk in answer:
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or ():
                    known = calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                    known["id"] += call.id or ""
                    known["name"] += call.function.name or ""
                    known["arguments"] += call.function.arguments or ""
    else:
        finish = answer.choices[0].finish_reason
        for index, call in enumerate(answer.choices[0].message.tool_calls):
            calls[index] = {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
    assert finish == "tool_calls"
    assert [call["name"] for call in calls.values()] == ["weather"]
    assert json.loads(calls[0]["arguments"]) == {"city": "Bern"}
    assert "The weather of a city." in json.dumps(native.bodies[-1])
    function = {"name": "weather", "arguments": calls[0]["arguments"]}
    called = {"role": "assistant", "tool_calls": [{"id": calls[0]["id"], "type": "function", "function": function}]}
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "sunny-17"}
    messages = [{"role": "user", "content": "q"}, called, result, {"role": "user", "content": "good"}]
    final = await tenant.client.chat.completions.create(model=kind, messages=messages, tools=TOOLS)
    assert final.choices[0].message.content == "".join(WORDS)
    sent = json.dumps(native.bodies[-1])
    assert "sunny-17" in sent
    assert "Bern" in sent


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", MODELS)
async def test_calls_of_two_tools_at_once(tenant: Tenant, native: Native, kind: str, stream: bool) -> None:
    """Each call has its own index, id and arguments, in order; both results go back to the provider."""
    asked: list[Any] = [{"role": "user", "content": "tools"}]
    tools = [*TOOLS, {"type": "function", "function": {"name": "time", "parameters": ZONE}}]
    whole = await _whole(tenant, model=kind, messages=asked, tools=tools, stream=stream)
    assert whole.finish_reason == "tool_calls"
    called = whole.message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in called] == [
        ("weather", {"city": "Bern"}),
        ("time", {"zone": "CET"}),
    ]
    assert len({call.id for call in called}) == 2
    results = [{"role": "tool", "tool_call_id": call.id, "content": f"result-{call.function.name}"} for call in called]
    made = {"role": "assistant", "tool_calls": [call.model_dump(exclude={"index"}) for call in called]}
    messages = [{"role": "user", "content": "q"}, made, *results, {"role": "user", "content": "good"}]
    final = await tenant.client.chat.completions.create(model=kind, messages=messages, tools=tools)
    assert final.choices[0].message.content == "".join(WORDS)
    sent = json.dumps(native.bodies[-1])
    assert sent.index("result-weather") < sent.index("result-time")


async def _whole(tenant: Tenant, **request: Any) -> Any:
    """Return the only choice of an answer; of a stream as the openai package puts its pieces together."""
    if not request.pop("stream"):
        return (await tenant.client.chat.completions.create(**request)).choices[0]
    async with tenant.client.chat.completions.stream(**request) as stream:
        async for _ in stream:
            pass
        return (await stream.get_final_completion()).choices[0]


@pytest.mark.parametrize("kind", MODELS)
async def test_langchain_unchanged(tenant: Tenant, native: Native, kind: str) -> None:
    """`ChatOpenAI` streams, calls two tools and gets the answer to their results, as with OpenAI."""
    url, token = f"{tenant.gateway.url}/v1", SecretStr(tenant.cluster.token(NAMESPACE))
    chat = ChatOpenAI(model=kind, base_url=url, api_key=token, max_retries=0, temperature=0.5, max_tokens=500)
    pieces = [piece async for piece in chat.astream("good", stream_usage=True)]
    assert "".join(str(piece.content) for piece in pieces) == "".join(WORDS)
    used = [piece.usage_metadata["input_tokens"] for piece in pieces if piece.usage_metadata]
    assert used == [ENTRIES[kind]["input"]]
    bound = chat.bind_tools([*TOOLS, {"type": "function", "function": {"name": "time", "parameters": ZONE}}])
    asked = HumanMessage("tools")
    called = await bound.ainvoke([asked])
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [
        ("weather", {"city": "Bern"}),
        ("time", {"zone": "CET"}),
    ]
    results = [ToolMessage(f"result-{call['name']}", tool_call_id=call["id"]) for call in called.tool_calls]
    final = await bound.ainvoke([asked, called, *results, HumanMessage("good")])
    assert final.content == "".join(WORDS)
    assert "result-time" in json.dumps(native.bodies[-1])


CHOICES = {  # what the families make of: none, required, the tool called weather
    "anthropic": ({"type": "none"}, {"type": "any"}, {"type": "tool", "name": "weather"}),
    "gemini": ({"mode": "NONE"}, {"mode": "ANY"}, {"mode": "ANY", "allowed_function_names": ["weather"]}),
    "bedrock": (None, {"any": {}}, {"tool": {"name": "weather"}}),
    "cohere": (None, None, None),
}


@pytest.mark.parametrize("kind", MODELS)
async def test_which_tool_is_to_be_called(tenant: Tenant, native: Native, kind: str) -> None:
    """`tool_choice` reaches the provider in its words, or is refused by name."""
    named = {"type": "function", "function": {"name": "weather"}}
    for choice, wanted in zip(("none", "required", named), CHOICES[kind], strict=True):
        if wanted is None:
            body = await _unsupported(tenant, kind, tools=TOOLS, tool_choice=choice)
            assert body["param"] == "tool_choice"
            continue
        async with tenant.ask(kind, "good", tools=TOOLS, tool_choice=choice) as answer:
            assert answer.status == 200, await answer.text()
        sent = native.bodies[-1]
        found = {
            "anthropic": lambda sent: sent["tool_choice"],
            "gemini": lambda sent: sent["toolConfig"]["functionCallingConfig"],
            "bedrock": lambda sent: sent["toolConfig"]["toolChoice"],
        }[kind](sent)
        assert found == wanted


async def _unsupported(tenant: Tenant, kind: str, code: str = "unsupported_parameter", **fields: Any) -> dict[str, Any]:
    """Return the error of a request that is refused before the provider is asked."""
    async with tenant.ask(kind, "good", **fields) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (400, code), error
        return error


# Fields of the chat's wire, a value that asks for something, and which families have it: what their request then holds.
FIELDS: dict[str, tuple[Any, dict[str, str]]] = {
    "seed": (7, {"gemini": '"seed": 7', "cohere": '"seed": 7'}),
    "stop": (
        ["END"],
        {
            "anthropic": '"stop_sequences": ["END"]',
            "gemini": '"stop_sequences": ["END"]',
            "bedrock": '"stopSequences": ["END"]',
            "cohere": '"stop_sequences": ["END"]',
        },
    ),
    "max_completion_tokens": (
        55,
        {
            "anthropic": '"max_tokens": 55',
            "gemini": '"max_output_tokens": 55',
            "bedrock": '"maxTokens": 55',
            "cohere": '"max_tokens": 55',
        },
    ),
    "temperature": (0.5, dict.fromkeys(MODELS, '"temperature": 0.5')),
    "top_p": (
        0.5,
        {"anthropic": '"top_p": 0.5', "gemini": '"top_p": 0.5', "bedrock": '"topP": 0.5', "cohere": '"p": 0.5'},
    ),
    "frequency_penalty": (0.5, dict.fromkeys(("gemini", "cohere"), '"frequency_penalty": 0.5')),
    "presence_penalty": (0.5, dict.fromkeys(("gemini", "cohere"), '"presence_penalty": 0.5')),
    "n": (2, {"gemini": '"candidate_count": 2'}),
    "logprobs": (True, {"gemini": '"responseLogprobs": true'}),
    "top_logprobs": (2, {}),
    "logit_bias": ({"17": 1}, {}),
    "parallel_tool_calls": (False, dict.fromkeys(("anthropic", "bedrock"), '"disable_parallel_tool_use": true')),
    "reasoning_effort": (
        "low",
        {"anthropic": '"budget_tokens"', "gemini": '"thinkingBudget"', "bedrock": '"budget_tokens"'},
    ),
    "response_format": ({"type": "json_object"}, {"gemini": '"response_mime_type": "application/json"'}),
    "audio": ({"voice": "alloy", "format": "wav"}, {}),
    "modalities": (["text", "audio"], {}),
    "prediction": ({"type": "content", "content": "x"}, {}),
    "web_search_options": ({"search_context_size": "low"}, {}),
    "service_tier": ("flex", {}),
    "verbosity": ("low", {}),
    "functions": ([{"name": "f"}], {}),
    "a_field_of_tomorrow": ({"a": 1}, {}),
}


# Refused before that, because the tenant has a budget; without one by the translation (test_translatable.py).
NOT_LIMITABLE = {"audio", "modalities", "prediction", "web_search_options"}


@pytest.mark.parametrize("kind", MODELS)
async def test_every_field_has_its_effect_or_is_refused_by_name(tenant: Tenant, native: Native, kind: str) -> None:
    """None is dropped: it stands in the provider's request, or the call is a 400 that names it."""
    for name, (value, has) in FIELDS.items():
        fields = {name: value, **({"tools": TOOLS} if name == "parallel_tool_calls" else {})}
        fields |= {"max_tokens": 8000} if name == "reasoning_effort" else {}
        if kind not in has:
            code = "not_limitable" if name in NOT_LIMITABLE else "unsupported_parameter"
            assert (await _unsupported(tenant, kind, code, **fields))["param"] in {name, None}
            continue
        async with tenant.ask(kind, "good", **fields) as answer:
            assert answer.status == 200, (name, await answer.text())
        assert has[kind] in json.dumps(native.bodies[-1]), name


async def test_sound_is_refused_by_name(tenant: Tenant, native: Native) -> None:
    """Also where it is a part of a message."""
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    for kind in MODELS:
        error = await _unsupported(tenant, kind, "not_limitable", messages=[{"role": "user", "content": [sound]}])
        assert "input_audio" in error["message"]
    assert not native.paths


async def test_more_than_one_answer_with_probabilities(tenant: Tenant) -> None:
    """Of Gemini, whole; as a stream LiteLLM mixes them, so that is refused."""
    answer = await tenant.client.chat.completions.create(
        model="gemini", messages=[{"role": "user", "content": "good"}], n=2, logprobs=True
    )
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [
        (0, "".join(WORDS)),
        (1, "".join(WORDS)),
    ]
    (token,) = answer.choices[0].logprobs.content
    assert (token.token, token.logprob) == ("Hel", -0.1)
    assert [(top.token, top.logprob) for top in token.top_logprobs] == [("Hel", -0.1), ("Hal", -2.0)]
    assert (await _unsupported(tenant, "gemini", n=2, stream=True))["param"] == "n"


@pytest.mark.parametrize("kind", ["anthropic", "gemini", "bedrock", "nova"])
async def test_answers_that_follow_a_schema(tenant: Tenant, native: Native, kind: str) -> None:
    """A JSON schema reaches the provider, as a tool where a model has no schemas, and the answer is JSON."""
    schema = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    answer = await tenant.client.chat.completions.create(
        model=kind, messages=[{"role": "user", "content": "json"}], response_format=schema
    )
    assert json.loads(answer.choices[0].message.content) == {"city": "Bern"}
    assert answer.choices[0].finish_reason == "stop"
    assert "city" in json.dumps(native.bodies[-1])


@pytest.mark.parametrize("kind", ["anthropic", "gemini", "bedrock"])
@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning(tenant: Tenant, native: Native, kind: str, stream: bool) -> None:
    """What a model thinks aloud comes as `reasoning_content`, apart from the answer."""
    fields = {"reasoning_effort": "low", "max_tokens": 8000, "stream": stream}
    async with tenant.ask(kind, "thinks", **fields) as answer:
        body = await answer.text()
    assert answer.status == 200, body
    if stream:
        events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
        parts = [choice["delta"] for event in events for choice in event["choices"]]
    else:
        parts = [json.loads(body)["choices"][0]["message"]]
    assert "".join(part.get("reasoning_content") or "" for part in parts) == "Hm."
    assert "".join(part.get("content") or "" for part in parts) == "".join(WORDS)
    assert "think" in json.dumps(native.bodies[-1]).lower()


@pytest.mark.parametrize("kind", MODELS)
async def test_pictures_in_the_request(tenant: Tenant, native: Native, kind: str) -> None:
    """A picture in the request reaches the provider; one that would have to be fetched is refused, unfetched."""
    async with tenant.ask(kind, "", messages=_picture(PIXEL)) as answer:
        assert answer.status == 200, await answer.text()
    assert PIXEL.partition(",")[2] in json.dumps(native.bodies[-1])
    seen = len(native.paths)
    status, code, _ = await tenant.refused(kind, "", messages=_picture(f"{native.url}/v1/models"))
    assert (status, code) == (400, "image_not_embedded")
    assert len(native.paths) == seen


def _picture(url: str) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": "good"}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": parts}]


ERRORS = {
    "says-400": (400, "provider_refused_request"),
    "says-401": (502, "provider_unauthorized"),
    "says-403": (502, "provider_unauthorized"),
    "says-404": (502, "provider_model_not_found"),
    "says-500": (502, "provider_error"),
    "says-529": (502, "provider_error"),
    "too-long": (400, "context_length_exceeded"),
    "filtered": (400, "content_filter"),
    "echoes": (400, "provider_refused_request"),
    "says-429": (429, "provider_rate_limit_exceeded"),  # the last: it asks for a pause, which is kept
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", MODELS)
async def test_refusals_have_their_class(
    tenant: Tenant, native: Native, kind: str, *, stream: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each refusal is asked once, costs nothing, has OpenAI's class, and neither key nor request in answer or log."""
    for what, wanted in ERRORS.items():
        before, asked = await tenant.count(), len(native.paths)
        system = {"role": "system", "content": "a-secret-instruction"}
        messages = [system, {"role": "user", "content": what}]
        async with tenant.ask(kind, what, stream=stream, messages=messages) as answer:
            body = await answer.text()
            assert (answer.status, json.loads(body)["error"]["code"]) == wanted, (what, body)
            assert answer.headers.get("Retry-After") == ("7" if what == "says-429" else None)
        assert len(native.paths) == asked + 1
        assert (await tenant.entry(before)).cost == 0, what
        assert "a-secret-instruction" not in body
        assert not [secret for secret in (KEY, AWS_SECRET, AWS_TOKEN) if secret in body]
    logged = "".join(capfd.readouterr())
    assert not [secret for secret in (KEY, AWS_SECRET, AWS_TOKEN, "a-secret-instruction") if secret in logged]


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
async def test_a_wrong_key_is_the_platforms_matter(tenant: Tenant, kind: str) -> None:
    """Also where the family answers 400 for it."""
    status, code, _ = await tenant.refused(f"{kind}-wrong", "good")
    assert (status, code) == (502, "provider_unauthorized")


async def test_nobody_there(tenant: Tenant) -> None:
    """A provider that refuses connections is unreachable, and its address is not told."""
    status, code, body = await tenant.refused("anthropic-gone", "good")
    assert (status, code) == (502, "provider_unreachable")
    assert "127.0.0.1" not in body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
async def test_silence(tenant: Tenant, native: Native, kind: str, stream: bool) -> None:
    """A provider that does not begin to answer is given up on in time, and the call is charged as it may have been."""
    before = await tenant.count()
    status, code, _ = await tenant.refused(kind, "hangs", stream=stream, max_tokens=100)
    assert (status, code) == (504, "provider_timeout")
    entry = await tenant.entry(before)
    assert (entry.output, entry.source) == (100 if not stream else entry.output, "estimated")
    await _nothing_open(native)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("what", "code"), [("cut", "provider_error"), ("short", "provider_error"), ("stalls", "provider_timeout")]
)
async def test_streams_that_break(tenant: Tenant, native: Native, kind: str, what: str, code: str) -> None:
    """What came is passed on, then an error event; half an answer never looks whole."""
    before = await tenant.count()
    async with tenant.ask(kind, what, stream=True) as answer:
        events = (await answer.text()).strip().split("\n\n")
    assert json.loads(events[0][6:])["choices"][0]["delta"]["content"] == "Hel"
    assert json.loads(events[-1][6:])["error"]["code"] == code
    assert len(events) == 2
    entry = await tenant.entry(before)
    # Of models that may have reasoned out of sight all that was allowed is charged, of others the text.
    assert (entry.source, entry.output) == ("estimated", len("Hel") if kind == "cohere" else 16_384)
    await _nothing_open(native)


async def test_an_error_as_an_event(tenant: Tenant) -> None:
    """An error inside a stream becomes an error event of OpenAI's, without the provider's or LiteLLM's words."""
    async with tenant.ask("anthropic", "error-event", stream=True) as answer:
        events = (await answer.text()).strip().split("\n\n")
    assert json.loads(events[-1][6:])["error"]["code"] == "provider_error"
    assert "litellm" not in events[-1].lower()


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
async def test_garbage(tenant: Tenant, kind: str) -> None:
    """A success that is none is an error of the provider's, and paid for."""
    status, code, _ = await tenant.refused(kind, "garbage")
    assert (status, code) == (502, "provider_error")


@pytest.mark.parametrize("kind", MODELS)
async def test_a_client_that_hangs_up_ends_the_call(tenant: Tenant, native: Native, kind: str) -> None:
    """Upstream ends within a second, streamed or not; the text that came is charged."""
    before = await tenant.count()
    async with tenant.ask(kind, "endless", stream=True) as answer:
        await answer.content.readuntil(b"Hel")
        assert native.open == 1
        answer.close()
        await _nothing_open(native, seconds=1)
    assert (await tenant.entry(before)).outcome == "client_gone"
    call = asyncio.create_task(tenant.refused(kind, "hangs"))
    async with asyncio.timeout(10):
        while not native.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    call.cancel()
    await _nothing_open(native, seconds=1)


async def test_a_client_that_does_not_read_slows_the_provider_down(tenant: Tenant, native: Native) -> None:
    """Nothing piles up in between: the provider stops writing when buffers are full."""
    async with tenant.ask("anthropic", "flood", stream=True) as answer:
        await answer.content.readuntil(b"Hel")
        await until_still(lambda: native.written)
        assert native.open == 1
        answer.close()


async def test_settings_of_litellm_cannot_be_reached_by_a_request(tenant: Tenant, native: Native) -> None:
    """Addresses, keys and switches in a request are refused by name; so are fields whose effect would be lost."""
    asked = len(native.paths)
    for name in ("api_base", "api_key", "mock_response", "extra_headers", "aws_region_name", "logit_bias", "seed"):
        status, code, body = await tenant.refused("anthropic", "good", **{name: {"a": 1}})
        elsewhere = name in ROUTING_FIELDS  # refused whatever the provider
        assert (status, code) == (400, "field_not_allowed" if elsewhere else "unsupported_parameter")
        assert name in body
    status, code, _ = await tenant.refused("anthropic", "good", n=2)
    assert (status, code) == (400, "unsupported_parameter")
    assert len(native.paths) == asked
    async with tenant.ask("anthropic", "good", n=1, user="u", store=False, parallel_tool_calls=True) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("name", ["cohere", "gemini"])
async def test_embeddings(tenant: Tenant, native: Native, name: str) -> None:
    """Vectors come back in order, of the size that was asked for, as numbers or packed as OpenAI's client asks."""
    texts = [f"text {number}" for number in range(40)]
    for encoding in ("float", "base64", None):  # the package's own default is base64
        fields = {"encoding_format": encoding} if encoding else {}
        made = await tenant.client.embeddings.create(model=name, input=texts, dimensions=2, **fields)
        assert [vector.index for vector in made.data] == list(range(40))
        vectors = [vector.embedding for vector in made.data]
        if encoding == "base64":
            vectors = [list(struct.unpack("<2f", base64.b64decode(vector))) for vector in vectors]
        assert vectors == [[0.5, float(number)] for number in range(40)]
    sent = json.dumps(native.bodies[-1])
    assert "text 39" in sent
    assert ('"outputDimensionality": 2' if name == "gemini" else '"output_dimension": 2') in sent


async def test_what_embeddings_used_is_what_the_provider_says_or_an_estimate(tenant: Tenant) -> None:
    """Cohere says it. Gemini does not: what LiteLLM counts instead must not stand in the ledger as reported."""
    before = await tenant.count()
    await tenant.client.embeddings.create(model="cohere", input=["a", "b"])
    entry = await tenant.entry(before)
    assert (entry.input, entry.source) == (7, "reported")
    made = await tenant.client.embeddings.create(model="gemini", input=["a", "b"])
    assert made.usage is None
    entry = await tenant.entry(before + 1)
    assert entry.source == "estimated"
    assert entry.input >= 2


@pytest.mark.parametrize("name", ["anthropic", "bedrock"])
async def test_families_without_embeddings_say_so(tenant: Tenant, native: Native, name: str) -> None:
    """A 400, and nobody is asked."""
    with pytest.raises(openai.BadRequestError) as caught:
        await tenant.client.embeddings.create(model=name, input=["a"])
    assert (caught.value.code, caught.value.param) == ("embeddings_not_supported", "model")
    assert not native.paths


async def test_probes_cost_nothing(tenant: Tenant, native: Native) -> None:
    """Reachability is asked of the list of models; where there is none, an answer is enough, and the text says so."""
    found = (await tenant.probe())["assistants"]
    assert found["anthropic"]["reachable"]
    assert found["anthropic-wrong"]["reason"] == "ProviderUnauthorized"
    assert found["anthropic-gone"]["reason"] == "ProviderUnreachable"
    assert found["bedrock"]["reachable"]
    assert "key has not been checked" in found["bedrock"]["message"]
    assert not native.paths


async def _nothing_open(native: Native, seconds: float = 5) -> None:
    started = time.monotonic()
    while native.open:
        assert time.monotonic() - started < seconds, "the provider is still being read"
        await asyncio.sleep(0.01)


# --- each of these checks fails without what it checks ------------------------------------------------------------


class Everything(frozenset[str]):
    """Has every name."""

    def __contains__(self, _name: object) -> bool:
        return True


def _nothing(*_arguments: object, **_named: object) -> None:
    return None


def _never_early(_exchange: object) -> bool:
    return True


def _plainly(target: Target, status: int, _body: bytes, retry_after: str | None) -> Exception:
    return openai_wire.translate(target, status, openai_wire.Detail(), retry_after)


def _unpacked(index: int, item: dict[str, Any], *, packed: bool) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": item["embedding"]}


NOBODY_LOSES: dict[str, frozenset[tuple[str, str]]] = dict.fromkeys(MODELS, frozenset())
REMOVALS: dict[str, tuple[Any, str, Any, Callable[..., Any], dict[str, Any]]] = {
    "Cohere's billed units": (translation, "_bill", _nothing, test_whole_answers, {"kind": "cohere"}),
    "Cohere's named events": (translation, "_cohere", aiter, test_streams, {"kind": "cohere", "what": "good"}),
    "usage of a stream": (translation, "_add_greatest", _nothing, test_streams, {"kind": "anthropic", "what": "good"}),
    "a stream's last word": (
        transport.Exchange,
        "finished",
        property(_never_early, _nothing),
        test_streams_that_break,
        {"kind": "anthropic", "what": "short", "code": "provider_error"},
    ),
    "LiteLLM's own fields": (translation, "_NEVER_EMPTY", frozenset(), test_whole_answers, {"kind": "gemini"}),
    "pictures at an address": (
        litellm_request,
        "_part",
        lambda value, _provider: value,
        test_pictures_in_the_request,
        {"kind": "gemini"},
    ),
    "fields that nobody named": (
        litellm_request,
        "_WITHOUT_EFFECT",
        Everything(),
        test_settings_of_litellm_cannot_be_reached_by_a_request,
        {},
    ),
    **{
        f"fields that LiteLLM leaves out for {kind}": (
            litellm_request,
            "_LOST",
            NOBODY_LOSES,
            test_which_tool_is_to_be_called
            if kind == "cohere"
            else test_every_field_has_its_effect_or_is_refused_by_name,
            {"kind": kind},
        )
        for kind in MODELS
    },
    "the provider's words in refusals": (
        error_mapping,
        "map_error",
        _plainly,
        test_a_wrong_key_is_the_platforms_matter,
        {"kind": "gemini"},
    ),
    "the end of the provider's answer": (
        TranslatedAnswer,
        "close",
        _nothing,
        test_a_client_that_hangs_up_ends_the_call,
        {"kind": "anthropic"},
    ),
    "Gemini's missing count": (
        translation,
        "_count_gemini",
        _nothing,
        test_what_embeddings_used_is_what_the_provider_says_or_an_estimate,
        {},
    ),
    "packed vectors": (translation, "_vector", _unpacked, test_embeddings, {"name": "gemini"}),
}


@pytest.mark.parametrize("name", REMOVALS)
async def test_checks_fail_without_their_handling(
    tenant: Tenant, native: Native, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Taking out what handles a case makes the test of it fail, so none passes by accident."""
    place, attribute, instead, check, arguments = REMOVALS[name]
    monkeypatch.setattr(place, attribute, instead, raising=attribute != "finished")
    takes = inspect.signature(check)
    fixtures = {"tenant": tenant, "native": native}
    given = takes.bind(**arguments, **{known: made for known, made in fixtures.items() if known in takes.parameters})
    with pytest.raises((AssertionError, openai.APIError, LookupError, TypeError, ValueError)):
        await check(*given.args, **given.kwargs)
