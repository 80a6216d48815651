"""The official `openai` package, pointed at a tenant, works and raises its own error classes."""

from __future__ import annotations

import secrets
import time

import httpx
import openai
import pytest
from e2e_platform import Platform, Tenant, content_of, eventually

from assistant_demo.up import QUESTION


def test_it_lists_the_assistants_as_models(acme: Tenant) -> None:
    """Each assistant of the namespace is a model of the tenant's endpoint."""
    with acme.openai() as client:
        assert {model.id for model in client.models.list()} == {"support", "plain", "slow"}
        assert client.models.retrieve("plain").id == "plain"


def test_it_chats(acme: Tenant) -> None:
    """An answer comes back whole, with the tokens it took."""
    with acme.openai() as client:
        answer = client.chat.completions.create(model="plain", messages=[{"role": "user", "content": "Are you there?"}])
    assert "«Are you there?»" in (answer.choices[0].message.content or "")
    assert "«Be brief.»" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 10


def test_it_streams_with_usage(acme: Tenant) -> None:
    """Words come one by one, and the usage last when asked for."""
    with acme.openai() as client:
        stream = client.chat.completions.create(
            model="plain",
            messages=[{"role": "user", "content": "Are you there?"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) > 10
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 10


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cites_the_page_of_the_uploaded_pdf(acme: Tenant, *, stream: bool) -> None:
    """A fact that stands only in the PDF is answered with that document and page as its source."""
    with acme.openai() as client:
        messages = [{"role": "user", "content": QUESTION}]
        answer = client.chat.completions.create(model="support", messages=messages, stream=stream)
        if stream:
            chunks = list(answer)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks if chunk.choices]
            annotations = [note for delta in deltas for note in delta.get("annotations") or []]
        else:
            text = answer.choices[0].message.content or ""
            annotations = answer.choices[0].message.model_dump()["annotations"]
    assert "42 newton metres" in text
    cited = [note["file_citation"] for note in annotations]
    assert ("larkspur-service-manual.pdf", 3) in [(source["filename"], source["page"]) for source in cited]
    assert all(f"[{source['index']}]" in text for source in cited)


def test_a_german_question_is_answered_from_the_german_document(acme: Tenant) -> None:
    """Retrieval works in German as in English."""
    with acme.openai() as client:
        messages = [{"role": "user", "content": "Wie hoch ist das Tagegeld für einen vollen Tag?"}]
        answer = client.chat.completions.create(model="support", messages=messages)
    assert "32 Euro für einen vollen Tag" in (answer.choices[0].message.content or "")


def test_a_wrong_key_is_an_authentication_error(acme: Tenant) -> None:
    """401 in OpenAI's envelope, with its code."""
    wrong = "ak_" + secrets.token_urlsafe(32)
    with acme.openai(api_key=wrong) as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_assistant_is_a_not_found_error(acme: Tenant) -> None:
    """404 in OpenAI's envelope, with its code."""
    with acme.openai() as client, pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hello"}])
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "plain"}, "messages"),
        ({"model": "plain", "messages": "hello"}, "messages"),
        ({"model": 7, "messages": [{"role": "user", "content": "Hello"}]}, "model"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, "model"),
    ],
)
def test_a_malformed_body_is_a_bad_request_that_names_the_field(acme: Tenant, body: dict, field: str) -> None:
    """400 in OpenAI's envelope with `param`."""
    with acme.http() as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(field)


def test_a_client_that_hangs_up_frees_the_model_within_a_second(acme: Tenant, platform: Platform) -> None:
    """When the reader of a stream goes, the call to the provider behind two servers ends as well."""
    before = platform.stand_in_activity()["openStreams"]
    body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "word " * 200}]}
    with acme.http() as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()  # kept: the response would be closed along with a forgotten iterator
            next(lines)
            assert platform.stand_in_activity()["openStreams"] == before + 1
        gone = time.monotonic()
        eventually(lambda: _assert_streams(platform, before), seconds=5, every=0.1)
    took = time.monotonic() - gone
    print(f"hang-up seen by the provider after {took:.2f} s")
    assert took < 1.5  # a second, and the time to ask


def _assert_streams(platform: Platform, wanted: int) -> None:
    assert platform.stand_in_activity()["openStreams"] == wanted


def test_the_trace_goes_from_the_client_to_the_provider(acme: Tenant, platform: Platform) -> None:
    """The provider is called within the client's own trace, through the API and the gateway."""
    trace = secrets.token_hex(16)
    with acme.openai() as client:
        headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
        messages = [{"role": "user", "content": QUESTION}]
        content_of(
            client.chat.completions.create(model="support", messages=messages, stream=True, extra_headers=headers)
        )
    seen = [entry for entry in platform.stand_in_activity()["requests"] if trace in (entry["traceparent"] or "")]
    assert [entry["path"] for entry in seen] == ["/v1/embeddings", "/v1/chat/completions"]


def test_health_and_documentation_are_served(acme: Tenant) -> None:
    """The basic health needs no key and takes under 100 ms; the detailed one names every store; OpenAPI is there."""
    with httpx.Client(base_url=acme.url, trust_env=False) as client:
        client.get("/health")
        started = time.monotonic()
        assert client.get("/health").status_code == 200
        assert time.monotonic() - started < 0.1
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    with acme.http() as client:
        detailed = client.get("/health/detailed")
        assert detailed.status_code == 200, detailed.text
        assert all(store in detailed.text for store in ("postgres", "redis", "weaviate", "gateway"))
        for store in ("postgres", "redis", "weaviate", "gateway"):
            assert client.get(f"/health/{store}").status_code == 200
        assert "/v1/chat/completions" in client.get("/schema/openapi.json").text
