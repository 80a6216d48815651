"""`/api/v1/knowledge-bases` of a running API on real stores, as an HTTP client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from api_gateway import FakeGateway
from api_process import KEY, ApiProcess, api_process, document
from api_tenant import Tenant, knowledge_base, make_tenant
from fpdf import FPDF
from knowledge_world import World

from assistant_api.knowledge import upload
from assistant_cluster import stores

BASE = "/api/v1/knowledge-bases"


def pdf(text: str) -> bytes:
    made = FPDF()
    made.set_font("Helvetica", size=11)
    made.add_page()
    made.multi_cell(0, 6, text)
    return bytes(made.output())


@pytest.fixture(scope="module")
def tenant(postgres: stores.Postgres, weaviate_store: stores.Weaviate) -> Tenant:
    """One tenant for all tests of this file."""
    made = asyncio.run(make_tenant(postgres, weaviate_store))
    made.knowledge_bases.append(knowledge_base(made.key, "small", max_documents=2, max_bytes=1000))
    return made


@pytest.fixture(scope="module")
def api(tenant: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """An API of the tenant, with a gateway that embeds."""
    with FakeGateway().running() as gateway:
        config = document(gateway.url, [], tenant.knowledge_bases, tenant.key)
        with api_process(tmp_path_factory.mktemp("api"), config, tenant.mounted()) as process:
            process.wait_ready()
            yield process


@pytest.fixture
async def world(tenant: Tenant) -> AsyncIterator[World]:
    """The tenant with its clients, and without the documents of the test before."""
    made = World.of(tenant)
    try:
        await made.execute("DELETE FROM documents")
        yield made
    finally:
        await made.close()


@pytest.fixture
async def client(api: ApiProcess, world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the tenant's key, and no documents yet."""
    del world
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=20) as made:
        yield made


async def send(
    client: httpx.AsyncClient, name: str, content: bytes, base: str = "handbook", **headers: str
) -> httpx.Response:
    return await client.post(f"{BASE}/{base}/documents", files={"file": (name, content)}, headers=headers)


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is a problem of this kind, and return it."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert response.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "detail", "status", "request_id"} <= set(body)
    return body


async def test_a_document_goes_in_is_found_and_goes_out(client: httpx.AsyncClient, world: World) -> None:
    """Upload, wait, search, delete: the whole life of a document over HTTP."""
    created = await send(client, "manual.pdf", pdf("The torque of the axle nuts is 42 newton metres."))
    assert created.status_code == 202
    body = created.json()
    assert {**body, "id": 0, "sha256": 0, "bytes": 0, "created_at": 0, "updated_at": 0} == {
        "id": 0,
        "name": "manual.pdf",
        "media_type": "application/pdf",
        "bytes": 0,
        "sha256": 0,
        "status": "pending",
        "error": None,
        "pages": None,
        "chunks": None,
        "outdated": False,
        "reindexing": None,
        "created_at": 0,
        "updated_at": 0,
    }
    again = await send(client, "manual.pdf", pdf("Other words."))
    assert again.json()["id"] != body["id"]
    one = f"{BASE}/handbook/documents/{body['id']}"
    async with world.worker():
        await world.until("SELECT count(*) FROM documents WHERE status = 'ready'", 1)
        await world.until("SELECT count(*) FROM documents", 1)
        assert (await client.get(one)).status_code == 404
        current = f"{BASE}/handbook/documents/{again.json()['id']}"
        ready = (await client.get(current)).json()
        assert (ready["status"], ready["pages"], ready["chunks"]) == ("ready", 1, 1)
        found = await client.post(f"{BASE}/handbook/search", json={"query": "other words", "limit": 2})
        assert found.status_code == 200
        (passage,) = found.json()["data"]
        assert (passage["document_name"], passage["page"], passage["text"]) == ("manual.pdf", 1, "Other words.")
        deleted = await client.delete(current)
        assert (deleted.status_code, (await client.get(current)).status_code) == (202, 404)
        assert (await client.delete(current)).status_code == 404
        await world.until("SELECT count(*) FROM documents", 0)
    assert (await client.post(f"{BASE}/handbook/search", json={"query": "words"})).json() == {"data": []}


async def test_uploads_can_be_repeated(client: httpx.AsyncClient) -> None:
    """The same file again is 200 with the same document, however many send it at once."""
    answers = await asyncio.gather(*(send(client, "a.txt", b"Text.") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_knowledge_bases_say_what_they_hold(client: httpx.AsyncClient) -> None:
    """Name, limits and numbers; documents that wait are counted as such."""
    await send(client, "a.txt", b"Text.")
    listed = (await client.get(BASE)).json()["data"]
    assert [base["name"] for base in listed] == ["handbook", "products", "small"]
    assert (
        (await client.get(f"{BASE}/handbook")).json()
        == listed[0]
        == {
            "name": "handbook",
            "display_name": "Handbook",
            "documents": 1,
            "pending": 1,
            "failed": 0,
            "bytes": 5,
            "max_documents": 100,
            "max_bytes": 100_000_000,
            "outdated": 0,
            "reindexing": 0,
        }
    )


async def test_outdated_documents_are_read_again_on_demand(client: httpx.AsyncClient, world: World) -> None:
    """They are marked and counted; 202 with what is queued, however often it is asked for."""
    sent = (await send(client, "a.txt", b"Text.")).json()
    assert (sent["outdated"], sent["reindexing"]) == (False, None)
    await world.execute("UPDATE documents SET status = 'ready', run_after = now() + interval '1 hour'")
    (listed,) = (await client.get(f"{BASE}/handbook/documents")).json()["data"]
    assert (listed["outdated"], listed["reindexing"]) == (True, None)
    for _ in range(2):
        answer = await client.post(f"{BASE}/handbook/reindex")
        assert (answer.status_code, answer.json()["outdated"], answer.json()["reindexing"]) == (202, 1, 1)
    (listed,) = (await client.get(f"{BASE}/handbook/documents")).json()["data"]
    assert (listed["status"], listed["reindexing"]) == ("ready", {"status": "pending", "error": None})
    problem(await client.post(f"{BASE}/nothing/reindex"), 404, "knowledge_base_not_found")


async def test_documents_are_listed_page_by_page(client: httpx.AsyncClient) -> None:
    """The newest first; pages neither repeat nor lose a document when others come and go meanwhile."""
    for number in range(7):
        await send(client, f"{number}.txt", f"Text {number}.".encode())
    first = (await client.get(f"{BASE}/handbook/documents", params={"limit": 3})).json()
    await send(client, "later.txt", b"Later.")
    await client.delete(f"{BASE}/handbook/documents/{first['data'][0]['id']}")
    second = (
        await client.get(f"{BASE}/handbook/documents", params={"limit": 3, "cursor": first["next_cursor"]})
    ).json()
    third = (
        await client.get(f"{BASE}/handbook/documents", params={"limit": 3, "cursor": second["next_cursor"]})
    ).json()
    names = [item["name"] for page in (first, second, third) for item in page["data"]]
    assert names == [f"{number}.txt" for number in range(6, -1, -1)]
    assert third["next_cursor"] is None


@pytest.mark.parametrize(
    ("name", "content", "status", "code"),
    [
        ("a.docx", b"PK\x03\x04\x00", 415, "unsupported_media_type"),
        ("a.pdf", b"no PDF", 415, "unsupported_media_type"),
        ("a.txt", b"\x00\x01\x02", 415, "unsupported_media_type"),
        ("a.txt", b"", 400, "invalid_field"),
        ("a" * 300, b"x", 400, "invalid_field"),
    ],
)
async def test_what_is_no_document_is_refused(
    client: httpx.AsyncClient, name: str, content: bytes, status: int, code: str
) -> None:
    """4xx with the field that is wrong."""
    assert problem(await send(client, name, content), status, code).get("field", "file") == "file"


async def test_a_document_that_is_too_large_is_refused(client: httpx.AsyncClient) -> None:
    """413, whether the size is announced or found out; the limit is named."""
    large = b"x" * (upload.MAX_DOCUMENT_BYTES + 1)
    assert (
        str(upload.MAX_DOCUMENT_BYTES)
        in problem(await send(client, "a.txt", large), 413, "document_too_large")["detail"]
    )

    async def unannounced() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(40):
            yield b"x" * (1 << 20)

    response = await client.post(
        f"{BASE}/handbook/documents",
        content=unannounced(),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    problem(response, 413, "document_too_large")


async def test_the_largest_document_is_taken(client: httpx.AsyncClient, world: World, api: ApiProcess) -> None:
    """32 MiB arrive byte for byte, and the API does not hold them in memory."""
    before = api.memory()
    line = b"0123456789abcde\n"
    response = await send(client, "a.txt", line * (upload.MAX_DOCUMENT_BYTES // len(line)))
    assert (response.status_code, response.json()["bytes"]) == (202, upload.MAX_DOCUMENT_BYTES)
    assert await world.rows("SELECT count(*), sum(length(content)) FROM document_contents") == [
        (32, upload.MAX_DOCUMENT_BYTES)
    ]
    assert api.memory() - before < 40


async def test_limits_of_a_knowledge_base_hold(client: httpx.AsyncClient) -> None:
    """Neither more documents nor more bytes than allowed, even when many are sent at once; a new version fits."""
    answers = await asyncio.gather(*(send(client, f"{number}.txt", b"x", "small") for number in range(6)))
    assert sorted(answer.status_code for answer in answers) == [202, 202, 409, 409, 409, 409]
    full = next(answer for answer in answers if answer.status_code == 409)
    assert "small" in problem(full, 409, "knowledge_base_full")["detail"]
    kept = next(answer.json()["name"] for answer in answers if answer.status_code == 202)
    assert (await send(client, kept, b"y" * 900, "small")).status_code == 202
    problem(await send(client, kept, b"z" * 1001, "small"), 409, "knowledge_base_full")


async def test_unknown_things_are_404(client: httpx.AsyncClient) -> None:
    """A knowledge base that is not there, an id that is not one, a document of another knowledge base."""
    problem(await client.get(f"{BASE}/nothing"), 404, "knowledge_base_not_found")
    problem(await send(client, "a.txt", b"x", "nothing"), 404, "knowledge_base_not_found")
    for identity in ("x", str(uuid.uuid4())):
        problem(await client.get(f"{BASE}/handbook/documents/{identity}"), 404, "document_not_found")
    mine = (await send(client, "a.txt", b"Text.")).json()["id"]
    for method in ("GET", "DELETE"):
        response = await client.request(method, f"{BASE}/products/documents/{mine}")
        problem(response, 404, "document_not_found")


@pytest.mark.parametrize(
    ("method", "path", "arguments", "status", "field"),
    [
        ("GET", "/handbook/documents", {"params": {"limit": "0"}}, 400, "limit"),
        ("GET", "/handbook/documents", {"params": {"limit": "1000"}}, 400, "limit"),
        ("GET", "/handbook/documents", {"params": {"limit": "ten"}}, 400, "limit"),
        ("GET", "/handbook/documents", {"params": {"cursor": "nonsense"}}, 400, "cursor"),
        ("POST", "/handbook/search", {"content": b"{"}, 400, None),
        ("POST", "/handbook/search", {"json": {}}, 400, "query"),
        ("POST", "/handbook/search", {"json": {"query": 5}}, 400, "query"),
        ("POST", "/handbook/search", {"json": {"query": " "}}, 400, "query"),
        ("POST", "/handbook/search", {"json": {"query": "a", "limit": 0}}, 400, "limit"),
        ("POST", "/handbook/search", {"json": {"query": "a", "limit": 51}}, 400, "limit"),
        ("POST", "/handbook/documents", {"json": {}}, 415, None),
        (
            "POST",
            "/handbook/documents",
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
            "file",
        ),
        ("POST", "/handbook/documents", {"data": {"file": "x"}, "files": {"other": b"x"}}, 400, "file"),
        ("PUT", "/handbook/documents", {}, 405, None),
    ],
)
async def test_malformed_requests_are_refused_by_field(
    client: httpx.AsyncClient, method: str, path: str, arguments: dict[str, Any], status: int, field: str | None
) -> None:
    """Problem details with the name of the field; never a 5xx."""
    response = await client.request(method, BASE + path, **arguments)
    body = response.json()
    assert (response.status_code, body.get("field")) == (status, field), body


async def test_without_a_key_nothing_is_told(api: ApiProcess) -> None:
    """401 for a missing and a wrong key, on every path."""
    async with httpx.AsyncClient(base_url=api.url) as stranger:
        for headers in ({}, {"authorization": "Bearer ak_wrong"}):
            for method, path in (("GET", ""), ("GET", "/handbook/documents"), ("POST", "/handbook/search")):
                response = await stranger.request(method, BASE + path, headers=headers)
                problem(response, 401, "invalid_api_key")


async def test_sentences_come_in_the_callers_language(client: httpx.AsyncClient, world: World) -> None:
    """Errors of requests and of documents are explained in German to who asks for German; codes stay."""
    german = {"accept-language": "de"}
    refused = problem(await send(client, "a.docx", b"PK\x03\x04\x00", **german), 415, "unsupported_media_type")
    assert "spielt keine Rolle" in refused["detail"]
    assert ".markdown, .md" in refused["detail"]
    sent = (await send(client, "a.pdf", b"%PDF-1.4")).json()["id"]
    async with world.worker():
        await world.settled(uuid.UUID(sent))
    error = (await client.get(f"{BASE}/handbook/documents/{sent}", headers=german)).json()["error"]
    assert (error["code"], "lesbares PDF" in error["message"]) == ("document_damaged", True)
    error = (await client.get(f"{BASE}/handbook/documents/{sent}")).json()["error"]
    assert "readable PDF" in error["message"]


async def test_a_caller_who_hangs_up_leaves_nothing(client: httpx.AsyncClient, world: World) -> None:
    """Half an upload is no document."""

    async def half() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        yield b"x" * 100_000
        raise RuntimeError("the caller's power fails")

    with pytest.raises(RuntimeError, match="power"):
        await client.post(
            f"{BASE}/handbook/documents",
            content=half(),
            headers={"content-type": "multipart/form-data; boundary=b"},
        )
    await asyncio.sleep(0.3)
    assert await world.rows("SELECT count(*) FROM documents") == [(0,)]


async def test_the_caller_trace_goes_on_in_the_worker(client: httpx.AsyncClient, world: World) -> None:
    """The trace that the client started is stored with the job."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    await send(client, "a.txt", b"Text.", traceparent=f"00-{trace}-b7ad6b7169203331-01")
    ((stored,),) = await world.rows("SELECT traceparent FROM documents")
    assert stored.split("-")[1] == trace


async def test_the_interface_is_described(client: httpx.AsyncClient) -> None:
    """OpenAPI has the upload as a form with a file, and the search with its question."""
    paths = json.loads((await client.get("/schema/openapi.json")).content)["paths"]
    uploading = paths[f"{BASE}/{{name}}/documents"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert uploading["properties"]["file"]["format"] == "binary"
    searching = paths[f"{BASE}/{{name}}/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert searching["required"] == ["query"]
    assert msgspec.json.decode((await client.get("/schema/openapi.json")).content)["openapi"].startswith("3.")


async def test_many_uploads_at_once_wait_for_a_place(client: httpx.AsyncClient) -> None:
    """A burst is taken in turn; the scratch volume never holds more than a few documents."""
    content = b"0123456789abcde\n" * 200_000
    answers = await asyncio.gather(*(send(client, f"{number}.txt", content) for number in range(12)))
    assert [answer.status_code for answer in answers] == [202] * 12


async def test_stores_that_are_away_are_503(weaviate_store: stores.Weaviate, tmp_path: Path) -> None:
    """Neither a 500 nor a long wait: the caller is told when to come back, and all is well when the store is."""
    with stores.postgres() as postgres, FakeGateway().running() as gateway:
        tenant = await make_tenant(postgres, weaviate_store, ["handbook"])
        config = document(gateway.url, [], tenant.knowledge_bases, tenant.key)
        with api_process(tmp_path, config, tenant.mounted()) as process:
            await asyncio.to_thread(process.wait_ready)
            headers = {"authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(base_url=process.url, headers=headers, timeout=20) as client:
                assert (await send(client, "a.txt", b"Text.")).status_code == 202
                postgres.server.stop()
                for response in (
                    await send(client, "b.txt", b"Text."),
                    await client.get(BASE),
                    await client.get(f"{BASE}/handbook/documents"),
                    await client.delete(f"{BASE}/handbook/documents/{uuid.uuid4()}"),
                ):
                    problem(response, 503, "storage_unavailable")
                    assert response.headers["retry-after"] == "5"
                    assert response.elapsed.total_seconds() < 5
                postgres.server.start()
                assert (await send(client, "b.txt", b"Text.")).status_code == 202
            broken = {**tenant.mounted(), "weaviate_url": "http://127.0.0.1:1", "weaviate_grpc": "127.0.0.1:2"}
        with api_process(tmp_path / "broken", config, broken) as process:
            async with httpx.AsyncClient(base_url=process.url, headers=headers, timeout=20) as client:
                await _answers(client)
                response = await client.post(f"{BASE}/handbook/search", json={"query": "text"})
                problem(response, 503, "storage_unavailable")


async def test_an_embedding_model_that_does_not_fit_is_named(tenant: Tenant, tmp_path: Path) -> None:
    """A search with vectors of another size is no fault of the question: 502 with its own code."""
    odd = knowledge_base(tenant.key, "odd", dimensions=8)
    with FakeGateway().running() as gateway:
        config = document(gateway.url, [], [odd], tenant.key)
        with api_process(tmp_path, config, tenant.mounted()) as process:
            headers = {"authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(base_url=process.url, headers=headers, timeout=20) as client:
                await _answers(client)
                response = await client.post(f"{BASE}/odd/search", json={"query": "text"})
                problem(response, 502, "embedding_mismatch")


async def _answers(client: httpx.AsyncClient) -> None:
    """Wait until the API answers, ready or not."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(httpx.TransportError):
                await client.get("/livez")
                break
            await asyncio.sleep(0.05)
