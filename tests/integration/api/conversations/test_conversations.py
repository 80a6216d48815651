"""Conversations over REST on a real database: the caller's own, in pages, and nobody else's."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest


async def begin(client: httpx.AsyncClient, title: str | None = None) -> dict[str, Any]:
    created = await client.post("", json={"assistant": "plain", "title": title})
    assert created.status_code == 201, created.text
    found: dict[str, Any] = created.json()
    return found


async def listed(client: httpx.AsyncClient, **parameters: Any) -> list[str]:
    """All pages of the list, as titles."""
    titles: list[str] = []
    while True:
        page = (await client.get("", params=parameters)).json()
        titles += [conversation["title"] for conversation in page["data"]]
        if page["next_cursor"] is None:
            return titles
        parameters["cursor"] = page["next_cursor"]


async def test_a_conversation_begins_empty_and_can_be_read(client: httpx.AsyncClient) -> None:
    """With the assistant it was begun with, as its owner sees it."""
    created = await begin(client, "A title")
    assert created["assistant"] == "plain"
    assert (created["archived"], created["pinned"], created["messages"]) == (False, False, 0)
    assert created["active_message_id"] is None
    assert (await client.get(f"/{created['id']}")).json() == created


async def test_pages_show_every_conversation_once_pinned_first_and_newest_first(client: httpx.AsyncClient) -> None:
    """However small the pages; the archived ones are in a list of their own."""
    word = uuid4().hex
    made = [await begin(client, f"{word} {number}") for number in range(5)]
    assert (await client.patch(f"/{made[1]['id']}", json={"pinned": True})).json()["pinned"]
    assert (await client.patch(f"/{made[3]['id']}", json={"archived": True})).json()["archived"]
    for limit in (1, 2, 100):
        assert await listed(client, q=word, limit=limit) == [f"{word} {number}" for number in (1, 4, 2, 0)]
    assert await listed(client, q=word, archived=True) == [f"{word} 3"]


async def test_a_title_can_be_changed_and_taken_away(client: httpx.AsyncClient) -> None:
    """What is not given stays."""
    address = f"/{(await begin(client, 'Before'))['id']}"
    assert (await client.patch(address, json={"title": "After", "pinned": True})).json()["title"] == "After"
    changed = (await client.patch(address, json={"title": None})).json()
    assert (changed["title"], changed["pinned"]) == (None, True)
    assert (await client.patch(address, json={})).json() == changed


@pytest.mark.parametrize(
    ("title", "words"),
    [("Die Übergrößen", "üBERGRÖSSEN"[:5]), ("100%_sure\\", "%_sure\\"), ("محادثة قصيرة", "قصيرة"), ("don't", "N'T")],
)
async def test_search_finds_words_in_titles_whatever_they_are_made_of(
    client: httpx.AsyncClient, title: str, words: str
) -> None:
    """In any script, in any case, and characters with a meaning in patterns mean themselves."""
    await begin(client, title)
    assert title in await listed(client, q=words)
    assert title not in await listed(client, q=words + "x")


async def test_a_deleted_conversation_is_gone(client: httpx.AsyncClient, dsn: str) -> None:
    """From the database, too."""
    created = await begin(client)
    assert (await client.delete(f"/{created['id']}")).status_code == 204
    assert (await client.get(f"/{created['id']}")).status_code == 404
    assert (await client.delete(f"/{created['id']}")).json()["code"] == "conversation_not_found"
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT count(*) FROM conversations WHERE id = $1", created["id"]) == 0
    await connection.close()


async def test_somebody_elses_conversation_does_not_exist(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    """Neither in a list nor by its id, as for an id that nobody has."""
    word = uuid4().hex
    created = await begin(client, word)
    assert await listed(stranger, q=word) == []
    for identity in (created["id"], uuid4(), "no-id"):
        for answer in (
            await stranger.get(f"/{identity}"),
            await stranger.patch(f"/{identity}", json={"title": "Mine"}),
            await stranger.delete(f"/{identity}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "conversation_not_found")
    assert (await client.get(f"/{created['id']}")).json()["title"] == word


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "invalid_field", "assistant"),
        ({"assistant": "nobody"}, "model_not_found", "assistant"),
        ({"assistant": "plain", "title": ""}, "invalid_field", "title"),
        ({"assistant": "plain", "title": "x" * 201}, "invalid_field", "title"),
        ({"assistant": "plain", "title": "a\0b"}, "invalid_field", "title"),
        ({"assistant": "plain", "owner": "me"}, "invalid_field", "owner"),
        ({"assistant": "plain", "title": "x" * 20_000}, "request_too_large", None),
    ],
)
async def test_what_cannot_be_a_conversation_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], code: str, field: str | None
) -> None:
    """A problem with a stable code and the field that is wrong."""
    refused = await client.post("", json=body)
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.json()["code"], refused.json().get("field")) == (code, field)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"archived": "perhaps"}, "archived"),
        ({"q": "x" * 201}, "q"),
        ({"q": "\0"}, "q"),
    ],
)
async def test_a_wrong_parameter_of_the_list_is_named(
    client: httpx.AsyncClient, parameters: dict[str, Any], field: str
) -> None:
    """Each by its own name."""
    refused = await client.get("", params=parameters, headers={"accept-language": "de"})
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (400, "invalid_field", field)
    assert refused.headers["content-language"] == "de"
