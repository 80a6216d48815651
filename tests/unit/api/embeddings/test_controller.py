"""Embeddings, from the caller's request to the caller's answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_world import FakeAnswer, World, json_answer

from assistant_api.gateway import GatewayUnreachableError

EMBEDDINGS = "/v1/embeddings"
VECTORS = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [1.0, -2.5]}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}


def ask(**members: Any) -> dict[str, Any]:
    return {"model": "handbook", "input": "torque", **members}


async def test_the_request_reaches_the_gateway_and_the_vectors_the_caller(
    client: httpx.AsyncClient, world: World
) -> None:
    """Members that we do not know pass through; the size is the knowledge base's own, so it is not sent."""
    world.gateway.answer = json_answer(VECTORS, x_assistant_model="openai/te3", x_budget_remaining="1", server="x")
    answer = await client.post(EMBEDDINGS, json=ask(dimensions=8.0, user="ann", truncate="END"))
    assert (answer.status_code, answer.json()) == (200, VECTORS)
    assert answer.headers["x-assistant-model"] == "openai/te3"
    assert answer.headers["x-budget-remaining"] == "1"
    assert "server" not in answer.headers
    assert world.gateway.asked_vectors == [
        {"model": "handbook", "input": "torque", "truncate": "END", "encoding_format": "float"}
    ]
    assert world.gateway.answer.closed


@pytest.mark.parametrize("given", ["a", ["a", "b"], [1, 2], [[1, 2], [3]], ["x"] * 2048, [7] * 8192])
async def test_every_form_of_input_is_passed_on(client: httpx.AsyncClient, world: World, given: Any) -> None:
    """Texts and tokens, one and many."""
    world.gateway.answer = json_answer(VECTORS)
    assert (await client.post(EMBEDDINGS, json=ask(input=given))).status_code == 200
    assert world.gateway.asked_vectors[0]["input"] == given


@pytest.mark.parametrize(("given", "sent"), [([1.0, 2], [1, 2]), ([[1, 2.0], [3]], [[1, 2], [3]])])
async def test_tokens_reach_the_model_as_integers(
    client: httpx.AsyncClient, world: World, given: Any, sent: Any
) -> None:
    """However the caller's language writes them."""
    world.gateway.answer = json_answer(VECTORS)
    assert (await client.post(EMBEDDINGS, json=ask(input=given))).status_code == 200
    (asked,) = world.gateway.asked_vectors
    assert str(asked["input"]) == str(sent)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [["a"]]}, "input[0][0]"),
        ({"input": [-1]}, "input[0]"),
        ({"input": [1, 1.5]}, "input[1]"),
        ({"input": [[1e300]]}, "input[0][0]"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": [1] * 32_769}, "input"),
        ({"input": [[1] * 32_769]}, "input[0]"),
        ({"input": None}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 4}, "dimensions"),
        ({"dimensions": 8.5}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(
    client: httpx.AsyncClient, world: World, members: dict[str, Any], param: str
) -> None:
    """400 in OpenAI's envelope, before anything is asked."""
    answer = await client.post(EMBEDDINGS, json=ask(**members))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_field", param), error
    assert world.gateway.asked_vectors == []


async def test_an_unknown_knowledge_base_is_404(client: httpx.AsyncClient) -> None:
    """Also an assistant is none."""
    answer = await client.post(EMBEDDINGS, json=ask(model="support"))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "knowledge_base_not_found", "model")


async def test_a_refusal_of_the_gateway_is_told_as_it_is_for_chats(client: httpx.AsyncClient, world: World) -> None:
    """With the time to come back."""
    world.gateway.answer = json_answer({"error": {"message": "m", "code": "budget_exhausted"}}, 429, retry_after="5")
    answer = await client.post(EMBEDDINGS, json=ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_exhausted")
    assert answer.headers["retry-after"] == "5"
    assert world.gateway.answer.closed
    world.gateway.answer = GatewayUnreachableError("away")
    answer = await client.post(EMBEDDINGS, json=ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gateway_unreachable")


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(client: httpx.AsyncClient, world: World) -> None:
    """The body does not come to its end."""
    cut = FakeAnswer(200, {}, [b'{"data": [{"embedding": [1', GatewayUnreachableError("cut")])
    world.gateway.answer = cut
    with pytest.raises((httpx.HTTPError, AssertionError)):
        await client.post(EMBEDDINGS, json=ask())
    assert cut.closed
