"""The bound of a request's tokens: never below what any tokenizer makes of it, whatever a client writes."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.metering.bounds import Bound, bound_of, chat_bound, embedding_bound

IMAGE = "data:image/png;base64," + base64.b64encode(bytes(30_000)).decode()


def fields(**body: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}


def chat(content: Any, **more: Any) -> dict[str, msgspec.Raw]:
    return fields(model="m", messages=[{"role": "user", "content": content}], **more)


def test_plain_messages_are_bounded_by_their_bytes() -> None:
    """Four times the tokens of English, and no more than that."""
    words = "word " * 1000
    bound = chat_bound(chat(words), "m")
    assert bound.unbounded is None
    assert 5000 <= bound.tokens <= 5000 + 700


def test_images_count_by_rule_and_not_by_bytes() -> None:
    """Known tiled models by OpenAI's rule, others by the catalogue's figure, however the image is sent."""
    for url in (IMAGE, "https://x.example/huge.png"):
        parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]
        assert 1445 <= chat_bound(chat(parts), "gpt-4o").tokens <= 1445 + 700
        assert 48_169 <= chat_bound(chat(parts), "gpt-4o-mini-2024-07-18").tokens <= 48_169 + 700
        twice = chat_bound(chat(parts * 2), "local", image_tokens=3000)
        assert 6000 <= twice.tokens <= 6000 + 800
        unknown = chat_bound(chat(parts), "local")
        assert unknown.unbounded == "images for a model whose maxImageTokens the catalogue does not have"


HIDDEN = {
    "escaped key": rb'[{"role":"user","content":[{"\u0074ype":"image_url","image_url":{"url":"https://x"}}]}]',
    "escaped content": rb'[{"role":"user","con\u0074ent":[{"type":"image_url","image_url":{"url":"https://x"}}]}]',
    "no type": rb'[{"role":"user","content":[{"image_url":"https://x"}]}]',
    "spaces": b'[{"role":"user","content" :\n [{"type":"image_url","image_url":{"url":"https://x"}}]}]',
    "an object": rb'[{"role":"user","content":{"type":"image_url","image_url":{"url":"https://x"}}}]',
    "sound": rb'[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AA"}}]}]',
    "a file": rb'[{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}]',
    "earlier sound": rb'[{"role":"assistant","content":null,"audio":{"id":"a"}}]',
    "unreadable": rb'[{"role":"user","content":[' + b"[" * 3000 + b"]" * 3000 + b"]}]",
}


@pytest.mark.parametrize("messages", HIDDEN.values(), ids=HIDDEN)
def test_nothing_that_costs_more_than_its_bytes_passes_as_text(messages: bytes) -> None:
    """Images and the like are found however a client writes them, or the request is unbounded."""
    assert chat_bound({"messages": msgspec.Raw(messages)}, "m").unbounded is not None


@pytest.mark.parametrize(
    "more",
    [
        {"models": ["expensive"]},
        {"web_search_options": {"search_context_size": "high"}},
        {"plugins": [{"id": "web"}]},
        {"modalities": ["text", "audio"]},
        {"chat_template": "{% for i in range(100000) %}x{% endfor %}"},
        {"tools": [{"type": "web_search_preview"}]},
        {"tools": [{"type": "function", "function": {}}, {"type": "code_interpreter"}]},
        {"prediction": {"type": "content", "content": "x"}},
    ],
)
def test_fields_whose_cost_cannot_be_told_are_named(more: dict[str, Any]) -> None:
    """Other models, searches, sound: a limit cannot be kept, so the request says why."""
    problem = chat_bound(chat("Hi", **more), "m").unbounded
    assert problem is not None
    assert next(iter(more)).removesuffix("s") in problem


def test_tools_and_schemas_are_part_of_the_prompt() -> None:
    """Their bytes count, and what a provider adds for having tools at all."""
    tool = {"type": "function", "function": {"name": "find", "description": "x" * 2000, "parameters": {}}}
    plain, tooled = chat_bound(chat("Hi"), "m"), chat_bound(chat("Hi", tools=[tool]), "m")
    assert tooled.unbounded is None
    assert tooled.tokens >= plain.tokens + 2000 + 700
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"description": "y" * 2000}}}
    assert chat_bound(chat("Hi", response_format=schema), "m").tokens >= plain.tokens + 2000
    assert chat_bound(chat("Hi", tools=[], modalities=["text"], models=None), "m").unbounded is None


def test_inputs_of_embeddings_are_bounded() -> None:
    """Texts by bytes and markers, numbers one by one; anything else is unbounded."""
    assert embedding_bound(fields(input="abc")).tokens >= 3 + 2
    many = embedding_bound(fields(input=["a"] * 100))
    assert 100 * 3 <= many.tokens <= 100 * 10
    assert embedding_bound(fields(input=[[1, 2, 3], [4]])).tokens >= 4
    assert embedding_bound(fields(input="{not an object}")).unbounded is None
    assert embedding_bound(fields(input=[{"image": "https://x"}])).unbounded == "input that is not text"
    assert embedding_bound(fields(input="x", messages=[{}])).unbounded == "messages"


@given(st.dictionaries(st.text(max_size=8), st.binary(max_size=40), max_size=4), st.binary(max_size=200))
def test_no_body_breaks_the_count(more: dict[str, bytes], messages: bytes) -> None:
    """Whatever bytes stand where JSON should be, there is a bound and no error."""
    body = {name: msgspec.Raw(value) for name, value in {**more, "messages": messages, "n": messages}.items()}
    assert isinstance(chat_bound(body, "m"), Bound)
    assert isinstance(embedding_bound(body), Bound)


async def test_a_large_request_has_the_bound_of_its_kind() -> None:
    """Images by rule, sound and the like without a bound, plain texts by their bytes: at any size."""
    words = "word " * 60_000
    plain = await bound_of(chat(words), "m", embedding=False)
    assert plain.unbounded is None
    assert len(words) <= plain.tokens <= len(words) + 3000
    image = "data:image/png;base64," + "A" * 300_000
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": image}}]
    tiled = await bound_of(chat(parts), "gpt-4o", embedding=False)
    assert (tiled.unbounded, 1445 <= tiled.tokens <= 1445 + 3000) == (None, True)
    assert 1445 <= chat_bound(chat(parts), "gpt-4o").tokens <= 1445 + 3000
    assert (await bound_of(chat(parts), "local", embedding=False)).unbounded is not None
    for content in ([{"type": "input_audio", "x": words}], [{"type": "file", "x": words}], {"type": words}):
        assert (await bound_of(chat(content), "m", embedding=False)).unbounded is not None
    assert (await bound_of(chat(words, web_search_options={"a": 1}), "m", embedding=False)).unbounded is not None
    assert (await bound_of(chat("a", tools=[{"type": "function", "x": words}]), "m", embedding=False)).unbounded


@pytest.mark.parametrize(
    ("body", "pieces"),
    [
        (chat([{"type": "text", "text": "x"}] * 20_000), 20),
        (fields(messages=[{"role": "user", "content": "x"}] * 20_000), 20),
        (fields(messages=[{"role": "user", "content": "x" * 4_000_000}]), 16),
    ],
    ids=["parts", "messages", "text"],
)
async def test_others_have_their_turn_while_a_large_request_is_looked_at(
    body: dict[str, msgspec.Raw], pieces: int
) -> None:
    """After so many parts, messages or bytes."""
    pauses = 0

    async def pause() -> None:
        nonlocal pauses
        pauses += 1

    await bound_of(body, "m", embedding=False, pause=pause)
    assert pauses >= pieces


async def test_a_large_input_of_embeddings_is_text_unless_an_object_stands_in_it() -> None:
    """Braces inside of texts are text, however many there are and whatever stands before them."""
    code = [', {"a": 1}, [{' * 2000] * 10
    found = await bound_of(fields(input=code), "m", embedding=True)
    assert found.unbounded is None
    assert found.tokens >= sum(len(text) for text in code)
    hidden = await bound_of(fields(input=[*code, {"image": "https://x"}]), "m", embedding=True)
    assert hidden.unbounded == "input that is not text"
