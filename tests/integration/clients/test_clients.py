"""Real clients, unchanged, against a running platform: whole and streamed, cited and plain, with tools and with errors.

Each language's clients are one process in an environment of their own (`tests/clients/`), because they want other
versions of packages than the product.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from client_platform import TITLE, WORDS, ClientPlatform
from client_processes import CLIENTS, environment, run

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1000)]


def made(name: str) -> Path:
    """Return an environment; a machine without its tools leaves its clients out, and says so."""
    try:
        return environment.ensure(name)
    except environment.MissingError as error:
        pytest.skip(f"the clients in {name} are not tried: {error}")


@pytest.mark.parametrize("name", ["python", "llamaindex"])
async def test_clients_in_python(platform: ClientPlatform, name: str) -> None:
    """openai, pydantic-ai, openai-agents, LiteLLM, instructor, LangChain with its standard suite; LlamaIndex."""
    python = environment.ensure(name) / "venv" / "bin" / "python"
    told = run(platform, str(python), "-m", "pytest", "--strict-config", str(CLIENTS / name), cwd=CLIENTS / name)
    assert " passed" in told
    assert "xfailed" not in told


async def test_clients_in_javascript(platform: ClientPlatform) -> None:
    """openai, and Vercel's AI SDK with @ai-sdk/openai and @ai-sdk/openai-compatible."""
    place = made("javascript")
    told = run(platform, "node", "--test", "--test-reporter=tap", "suite.test.mjs", cwd=place)
    assert "# fail 0" in told
    assert "# skipped 0" in told


async def test_async_openai_in_rust(platform: ClientPlatform) -> None:
    """Its types take the answers, with their sources, and its errors have our codes."""
    place = made("rust")
    lines = [json.loads(line) for line in run(platform, str(place / "target" / "debug" / "clients")).splitlines()]
    found = {line["case"]: line for line in lines}
    whole = found["whole support"]["found"]
    assert WORDS in whole["text"]
    assert {note["title"] for note in whole["notes"]} == {TITLE}
    assert found["streamed support"]["found"]["text"] == whole["text"]
    assert found["whole plain"]["found"]["notes"] == []
    assert found["streamed plain"]["found"]["text"] == found["whole plain"]["found"]["text"]
    assert (found["unknown"]["code"], found["wrong key"]["code"]) == ("model_not_found", "invalid_api_key")
    assert set(found["models"]["found"]) == {"support", "plain", "limited"}
