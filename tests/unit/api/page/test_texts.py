"""The page's sentences are in `locales/`, all of them and no others, and are served by language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from api_world import LOCALES, World, client_of

from assistant_api.page.controller import PREFIX

SOURCES = Path(__file__).parents[4] / "api" / "web" / "src"
ENGLISH = msgspec.json.decode((LOCALES / "en.json").read_bytes(), type=dict[str, str])
TEXTS = {key.removeprefix(PREFIX) for key in ENGLISH if key.startswith(PREFIX)}
GROUPS = {"action", "app", "error", *{key.partition(".")[0] for key in TEXTS}}
# Keys that are put together of a group and a value: the values that there are.
MADE = {
    "audit": ("success", "failure", "denied"),
    "keys": ("help", "new", "search", "send", "line", "stop"),
    "knowledge": ("pending", "processing", "ready", "failed"),
    "nav": ("knowledge", "usage", "people", "audit", "account"),
    "role": ("viewer", "member", "admin", "owner"),
    "theme": ("system", "light", "dark"),
    "usage": ("day", "assistant", "model", "user"),
}


def sources() -> Iterator[tuple[str, str]]:
    for path in SOURCES.rglob("*"):
        if path.suffix in {".ts", ".svelte"} and path.name != "schema.d.ts":
            yield str(path.relative_to(SOURCES)), path.read_text()


def used() -> set[str]:
    quoted = {key for _, text in sources() for key in re.findall(r'"([a-z]+\.[a-z_]+)"', text)}
    filled = {key for _, text in sources() for key in re.findall(r't\("([a-z]+\.[a-z_]+)", \{', text)}
    called = {key for _, text in sources() for key in re.findall(r't\(\s*"([a-z]+\.[a-z_]+)"', text)}
    made = {f"{group}.{value}" for group, values in MADE.items() for value in values}
    return {key for key in quoted if key.partition(".")[0] in GROUPS} | filled | called | made


def test_every_sentence_of_the_page_is_in_the_catalogues_and_each_is_used() -> None:
    """A missing key would show itself instead of a sentence; an unused one is translated for nothing."""
    assert used() - TEXTS == set()
    assert TEXTS - used() == set()


def test_keys_are_put_together_of_known_groups_only() -> None:
    """A template for a key that the list above does not know would go unchecked."""
    groups = {group for _, text in sources() for group in re.findall(r"t\(`([a-z]+)\.\$", text)}
    assert groups == MADE.keys()


def test_the_page_makes_no_markup_of_strings() -> None:
    """Words of models, documents and people are shown as nodes."""
    wrong = re.compile(r"\{@html|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\bstyle=\"")
    assert [name for name, text in sources() if wrong.search(text)] == []


@pytest.mark.parametrize("language", ["en", "de", "ar"])
async def test_sentences_are_served_by_language(world: World, language: str) -> None:
    """To anybody, the page's only; a browser that has them is told so."""
    async with client_of(world, None) as client:
        answer = await client.get(f"/api/v1/locales/{language}")
        found = answer.json()
        assert found["languages"] == ["ar", "de", "en"]
        assert found["texts"].keys() == TEXTS
        same = await client.get(f"/api/v1/locales/{language}", headers={"if-none-match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")


async def test_an_unknown_language_is_not_there(client: httpx.AsyncClient) -> None:
    """As any other name."""
    assert (await client.get("/api/v1/locales/xx")).status_code == 404
