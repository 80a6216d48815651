"""From an uploaded document to an answer that cites it, on real stores with the tenant's own narrow credentials."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import httpx
import openai
import pytest
from api_gateway import REFUSALS, FakeGateway
from api_process import KEY, ApiProcess, api_process, assistant, document
from api_tenant import Tenant, make_tenant
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from assistant_cluster import stores
from assistant_operator.adapters.redis import Redis as OperatorRedis

TEXT = """# Workshop

The bottom bracket of the Larkspur takes 42 newton metres.

# Travel

A full day abroad is paid with 32 euros.
"""
HEADERS = {"authorization": f"Bearer {KEY}"}


@dataclass
class Chain:
    """An API and a worker of one tenant, and the stores that are its own to break."""

    api: ApiProcess
    weaviate: stores.Weaviate
    redis: stores.Redis

    def client(self) -> openai.OpenAI:
        """The official client."""
        return openai.OpenAI(base_url=f"{self.api.url}/v1", api_key=KEY, max_retries=0)

    def health(self) -> dict[str, str]:
        """The state of each dependency."""
        checks = httpx.get(f"{self.api.url}/health/detailed", timeout=10).json()["checks"]
        return {name: check["status"] for name, check in checks.items()}


async def tenant_with_redis(postgres: stores.Postgres, weaviate: stores.Weaviate, redis: stores.Redis) -> Tenant:
    """Make the tenant, and its Redis user with the operator's own code."""
    tenant = await make_tenant(postgres, weaviate, ["handbook"])
    operator = OperatorRedis(redis.operator_url, lambda: None)
    password = secrets.token_hex(16)
    await operator.ensure_user(tenant.key, password)
    await operator.close()
    url = f"redis://{tenant.key}:{password}@{redis.address}"
    tenant.mounted = lambda: {**Tenant.mounted(tenant), "redis_url": url}  # type: ignore[method-assign]
    return tenant


@pytest.fixture(scope="module")
def chain(postgres: stores.Postgres, gateway: FakeGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The tenant's two processes with one document taken in."""
    folder = tmp_path_factory.mktemp("chain")
    with stores.weaviate() as weaviate, stores.redis() as redis:
        tenant = asyncio.run(tenant_with_redis(postgres, weaviate, redis))
        assistants = [assistant("support", "handbook"), assistant("plain")]
        config = document(gateway.url, assistants, tenant.knowledge_bases, tenant.key)
        mounted = tenant.mounted()
        with (
            api_process(folder / "api", config, mounted) as api,
            api_process(folder / "worker", config, mounted, module="assistant_api.worker"),
        ):
            api.wait_ready()
            take_in(api, TEXT.encode())
            yield Chain(api, weaviate, redis)


def take_in(api: ApiProcess, content: bytes) -> None:
    """Upload a document and wait until it is searchable."""
    documents = f"{api.url}/api/v1/knowledge-bases/handbook/documents"
    with httpx.Client(headers=HEADERS, timeout=10) as client:
        uploaded = client.post(documents, files={"file": ("handbook.md", content, "text/markdown")})
        assert uploaded.status_code == 202, uploaded.text
        end = time.monotonic() + 60
        while (found := client.get(f"{documents}/{uploaded.json()['id']}").json())["status"] != "ready":
            assert found["status"] in {"pending", "processing"}, found
            assert time.monotonic() < end, found
            time.sleep(0.1)


@pytest.mark.parametrize("code", ["budget_exhausted", "tokens_exhausted", "price_unknown", "limits_unavailable"])
def test_a_question_whose_search_meets_a_limit_is_refused_like_any_call(
    chain: Chain, gateway: FakeGateway, code: str
) -> None:
    """Embedding the question costs, too: the limit's own answer, in either envelope, and the model is not asked."""
    status, headers = REFUSALS[code]
    before = len(gateway.chats)
    gateway.embedding = code
    try:
        with chain.client() as client, pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="support", messages=[{"role": "user", "content": "Torque?"}])
        url = f"{chain.api.url}/api/v1/knowledge-bases/handbook/search"
        answer = httpx.post(url, json={"query": "Torque?"}, headers={**HEADERS, "accept-language": "de"})
    finally:
        gateway.embedding = ""
    assert (
        (caught.value.status_code, caught.value.code) == (status, code) == (answer.status_code, answer.json()["code"])
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] != answer.json()["code"]
    for name, value in headers.items():
        assert caught.value.response.headers[name] == answer.headers[name] == value
    assert len(gateway.chats) == before


def test_a_search_is_counted_for_who_asks(chain: Chain, gateway: FakeGateway) -> None:
    """The end user of a chat, or the API key; a document is nobody's."""
    with chain.client() as client:
        client.chat.completions.create(model="support", messages=[{"role": "user", "content": "Torque?"}], user="ada")
    url = f"{chain.api.url}/api/v1/knowledge-bases/handbook/search"
    assert httpx.post(url, json={"query": "Torque?"}, headers=HEADERS).status_code == 200
    assert gateway.users[0] is None
    assert gateway.users[-2:] == ["ada", "api-key:first"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cites_the_document_it_rests_on(chain: Chain, *, stream: bool) -> None:
    """In the answer's annotations, or in a chunk of their own before the last one."""
    with chain.client() as client:
        messages = [{"role": "user", "content": "How many newton metres does the bottom bracket of the Larkspur take?"}]
        answer = client.chat.completions.create(model="support", messages=messages, stream=stream)  # type: ignore[call-overload]
        if stream:
            chunks = list(answer)
            deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks if chunk.choices]
            text = "".join(delta.get("content") or "" for delta in deltas)
            notes = [note for delta in deltas for note in delta.get("annotations") or []]
            assert deltas[-2]["annotations"] == notes
            assert chunks[-1].choices[0].finish_reason == "stop"
        else:
            text = answer.choices[0].message.content
            notes = answer.choices[0].message.model_dump()["annotations"]
    assert "42 newton metres" in text
    cited = notes[0]["file_citation"]
    assert cited["filename"] == "handbook.md"
    assert cited["knowledge_base"] == "handbook"
    assert "42 newton metres" in cited["quote"]
    assert 0 < cited["score"] <= 1
    place = notes[0]["url_citation"]
    assert text[place["start_index"] : place["end_index"]] == f"[{cited['index']}]"
    assert place["title"] == cited["filename"]


def test_the_address_of_a_citation_opens_the_document_for_its_tenant_only(chain: Chain) -> None:
    """With the key of the call the file comes back as it was, at the words of the passage; without it, nothing."""
    with chain.client() as client:
        messages = [{"role": "user", "content": "How many newton metres does the bottom bracket of the Larkspur take?"}]
        answer = client.chat.completions.create(model="support", messages=messages)  # type: ignore[arg-type]
    (note, *_) = answer.choices[0].message.annotations or []
    url, _, fragment = note.url_citation.url.partition("#:~:text=")
    opened = httpx.get(url, headers=HEADERS)
    assert opened.content == TEXT.encode()
    assert unquote(fragment) in opened.text
    assert opened.headers["content-type"] == "text/plain; charset=utf-8"
    assert opened.headers["content-disposition"] == "inline; filename*=UTF-8''handbook.md"
    assert opened.headers["content-length"] == str(len(TEXT))
    assert opened.headers["cache-control"] == "no-store"
    for headers in ({}, {"authorization": "Bearer ak_wrong"}):
        assert httpx.get(url, headers=headers).status_code == 401
    missing = httpx.get(url.replace(url.split("/")[-2], str(uuid4())), headers=HEADERS)
    assert (missing.status_code, missing.json()["code"]) == (404, "document_not_found")


def test_a_large_document_is_read_whole(chain: Chain) -> None:
    """It is stored in parts and sent in pieces, whose edges no reader sees; what is no UTF-8 is just text."""
    content = b"".join(b"%07d line of the log\xe9\n" % number for number in range(100_000))
    documents = f"{chain.api.url}/api/v1/knowledge-bases/handbook/documents"
    with httpx.Client(headers=HEADERS, timeout=60) as client:
        uploaded = client.post(documents, files={"file": ("größe.log", content)}).json()
        opened = client.get(f"{documents}/{uploaded['id']}/content")
        assert client.delete(f"{documents}/{uploaded['id']}").status_code == 202
        assert client.get(f"{documents}/{uploaded['id']}/content").status_code == 404
    assert opened.content == content
    assert opened.headers["content-type"] == "text/plain"
    assert opened.headers["content-disposition"] == "inline; filename*=UTF-8''gr%C3%B6%C3%9Fe.log"


def test_the_tenants_credentials_are_enough_to_be_healthy(chain: Chain) -> None:
    """Narrow as they are: every dependency answers, Redis too."""
    assert chain.health() == dict.fromkeys(("gateway", "postgres", "redis", "weaviate"), "healthy")
    log = chain.api.log()
    assert "Traceback" not in log
    assert "noperm" not in log.lower()


def test_health_tells_no_address_and_no_credential(chain: Chain) -> None:
    """Not even while a store is away."""
    chain.redis.server.pause()
    time.sleep(1.1)  # answers are remembered for a second
    try:
        answer = httpx.get(f"{chain.api.url}/health/detailed", timeout=10)
    finally:
        chain.redis.server.resume()
    assert answer.json()["checks"]["redis"]["status"] == "unhealthy"
    assert answer.json()["status"] == "degraded"
    assert "127.0.0.1" not in answer.text
    assert "t_" not in answer.text


def test_without_the_vector_store_only_knowledge_is_missing(chain: Chain) -> None:
    """503 that says so, in time; other assistants go on; all is well again when the store is back."""
    messages = [{"role": "user", "content": "How many newton metres does the bottom bracket take?"}]
    chain.weaviate.server.stop()
    try:
        with chain.client() as client:
            started = time.monotonic()
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(model="support", messages=messages)  # type: ignore[arg-type]
            assert time.monotonic() - started < 25
            assert caught.value.status_code == 503
            assert caught.value.code == "knowledge_unavailable"
            assert client.chat.completions.create(model="plain", messages=messages).choices  # type: ignore[arg-type]
            assert chain.api.ready()
            time.sleep(1.1)
            assert chain.health()["weaviate"] == "unhealthy"
    finally:
        chain.weaviate.server.start()
    end = time.monotonic() + 30
    with chain.client() as client:
        while True:
            try:
                answer = client.chat.completions.create(model="support", messages=messages)  # type: ignore[arg-type]
                break
            except openai.InternalServerError:
                assert time.monotonic() < end
                time.sleep(0.2)
    assert "42 newton metres" in (answer.choices[0].message.content or "")


async def test_the_redis_user_may_do_what_the_api_does_and_nothing_else(
    redis_store: stores.Redis, postgres: stores.Postgres, weaviate_store: stores.Weaviate
) -> None:
    """The client's own commands at connect are among the allowed ones."""
    from assistant_api.clients import RedisClient

    tenant = await tenant_with_redis(postgres, weaviate_store, redis_store)
    client = RedisClient(tenant.mounted()["redis_url"])
    await client.ping()
    for name in (f"{{{tenant.key}}}:x", "other"):
        with pytest.raises(NoPermissionError):
            await client.redis.set(name, "1", ex=10)
        with pytest.raises(NoPermissionError):
            await client.redis.get(name)
    await client.close()
    assert isinstance(client.redis, Redis)


def test_memory_and_start_are_reported(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """What the API uses after all of these tests is printed, and is within the limit that its pod has by default."""
    used = chain.api.memory()
    with capsys.disabled():
        print(f"\nAPI with knowledge in use: {used:.0f} MiB resident")
    assert used < 256
    assert Path(f"/proc/{chain.api.process.pid}").exists()
