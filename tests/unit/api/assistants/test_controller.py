"""The tenant's assistants are models."""

from __future__ import annotations

import httpx
from api_world import World, assistant, document

from assistant_crds.contracts import UnavailableAssistant


async def test_models_are_listed_by_name(client: httpx.AsyncClient) -> None:
    """In OpenAI's shape, with the words a person chooses by."""
    body = (await client.get("/v1/models")).json()
    assert body["object"] == "list"
    assert body["data"][0] == {
        "id": "plain",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "acme",
        "display_name": "Plain",
        "description": "About plain.",
    }
    assert [model["id"] for model in body["data"]] == ["plain", "support"]


async def test_one_model_is_found_by_name(client: httpx.AsyncClient) -> None:
    """The same object as in the list."""
    listed = (await client.get("/v1/models")).json()["data"][1]
    assert (await client.get("/v1/models/support")).json() == listed


async def test_an_unknown_model_is_404(client: httpx.AsyncClient) -> None:
    """With OpenAI's code; a long name is not repeated at length."""
    answer = await client.get(f"/v1/models/{'x' * 5000}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert len(answer.text) < 500


async def test_a_new_configuration_is_served_at_once(client: httpx.AsyncClient, world: World) -> None:
    """The list follows the configuration in use."""
    world.config.replace(document(assistants=[assistant("fresh")]))
    assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["fresh"]


async def test_an_assistant_that_cannot_be_asked_is_503_with_why(client: httpx.AsyncClient, world: World) -> None:
    """It exists: clients try again, and people read what is missing."""
    absent = UnavailableAssistant(name="legal", reason="SecretNotFound", message="Secret key does not exist.")
    world.config.replace(document(unavailable=[absent]))
    for answer in (
        await client.get("/v1/models/legal"),
        await client.post(
            "/v1/chat/completions", json={"model": "legal", "messages": [{"role": "user", "content": "Hello"}]}
        ),
    ):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        error = answer.json()["error"]
        assert error["code"] == "assistant_not_ready"
        assert "SecretNotFound. Secret key does not exist." in error["message"]
    assert (await client.get("/v1/models/nobody")).status_code == 404
