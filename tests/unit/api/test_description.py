"""The OpenAPI description says what every operation may answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

OPEN = {"/health", "/health/{dependency}", "/health/detailed", "/livez", "/readyz"}


async def operations(client: httpx.AsyncClient, path: str = "/schema") -> list[tuple[str, str, Any]]:
    paths = (await client.get(path)).json()["paths"]
    return [(path, method, operation) for path, item in paths.items() for method, operation in item.items()]


async def test_every_operation_has_its_errors_in_the_shape_of_its_path(client: httpx.AsyncClient) -> None:
    """OpenAI's envelope under /v1, problems elsewhere; the shapes are part of the description."""
    for path, _, operation in await operations(client):
        if path in OPEN:
            assert operation["security"] == []
            continue
        assert {"400", "401", "500", "503"} <= operation["responses"].keys()
        kind, name = ("json", "OpenAIError") if path.startswith("/v1") else ("problem+json", "Problem")
        for status, response in operation["responses"].items():
            if status[0] in "45":
                assert response["content"] == {
                    f"application/{kind}": {"schema": {"$ref": f"#/components/schemas/{name}"}}
                }
    schemas = (await client.get("/schema/openapi.json")).json()["components"]["schemas"]
    assert {"OpenAIError", "Problem"} <= schemas.keys()


async def test_an_upload_may_be_there_already(client: httpx.AsyncClient) -> None:
    """200 has the document, as 202 has."""
    (upload,) = [
        found
        for path, method, found in await operations(client)
        if (path.split("/")[-1], method) == ("documents", "post")
    ]
    first, again = (upload["responses"][status] for status in ("202", "200"))
    assert first["content"] == again["content"]
    assert first["description"] != again["description"]
    assert "409" in upload["responses"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/knowledge-bases/handbook/documents", "GET, OPTIONS, POST"),
        ("/api/v1/knowledge-bases/handbook/documents/1", "DELETE, GET, OPTIONS"),
        ("/v1/models", "GET, OPTIONS"),
    ],
)
async def test_options_names_all_methods_of_a_path(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    """Not those of one handler only."""
    assert (await client.options(path)).headers["allow"] == allowed
