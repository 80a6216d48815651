"""What `GET /v1/usage` adds up, on a real Postgres and a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import asyncpg
import msgspec
import pytest
import yaml
from gateway_provider import Provider
from gateway_world import Cluster, Running, policy, running
from redis.asyncio import Redis as Client
from usage_database import UsageDatabase, make_usage_database

from assistant_cluster import stores
from assistant_crds import naming
from assistant_crds.contracts import TenantIdentity
from assistant_gateway.config import Settings
from assistant_gateway.errors import GatewayError
from assistant_gateway.ledger.database import LedgerDatabase
from assistant_gateway.ledger.entry import LedgerEntry, encode_entry
from assistant_gateway.limits.quota import SCRIPT
from assistant_gateway.limits.redis import Redis
from assistant_gateway.usage.query import parse_query
from assistant_gateway.usage.report import UsageReports

BERLIN = "Europe/Berlin"
NOVEMBER = [("from", "2026-11-01"), ("to", "2026-11-30")]


@pytest.fixture
async def database(postgres: stores.Postgres) -> UsageDatabase:
    """The ledger's schema, empty."""
    return await make_usage_database(postgres)


@pytest.fixture
async def reports(database: UsageDatabase) -> AsyncIterator[UsageReports]:
    """Reports of that database, without Redis."""
    made = UsageReports.of(database.url, None)
    yield made
    await made.close()


async def report(
    reports: UsageReports, tenant: str, *parameters: tuple[str, str], zone: str = BERLIN
) -> dict[str, Any]:
    """Return the report as the wire has it."""
    query = parse_query([*NOVEMBER, *parameters], ZoneInfo(zone), datetime.now(UTC))
    return msgspec.json.decode(msgspec.json.encode(await reports.report(tenant, "USD", query)))


async def test_sums_are_by_day_of_the_tenant(database: UsageDatabase, reports: UsageReports) -> None:
    """A call at half past eleven in the evening of UTC belongs to the next day in Berlin."""
    await database.add("t_a", "2026-11-01T10:00:00+00:00")
    await database.add("t_a", "2026-11-01T23:30:00+00:00", source="estimated", cost=30)
    await database.add("t_a", "2026-10-31T22:59:59+00:00")  # still October in Berlin
    await database.add("t_a", "2026-11-30T23:00:00+00:00")  # December there
    found = await report(reports, "t_a")
    assert [(row["day"], row["requests"], row["cost"]) for row in found["data"]] == [
        ("2026-11-01", 1, "0.000070"),
        ("2026-11-02", 1, "0.000030"),
    ]
    assert found["totals"] == [
        {
            "requests": 2,
            "input_tokens": 20,
            "cached_tokens": 8,
            "output_tokens": 10,
            "reasoning_tokens": 4,
            "cost": "0.000100",
            "currency": "USD",
            "estimated_requests": 1,
            "estimated_cost": "0.000030",
            "unpriced_requests": 0,
        }
    ]
    assert (found["from"], found["to"], found["time_zone"]) == ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z", BERLIN)
    assert found["pending"] == {"totals": [{**dict.fromkeys(found["totals"][0], 0), **_nothing()}], "complete": True}
    assert [row["day"] for row in (await report(reports, "t_a", zone="UTC"))["data"]] == ["2026-11-01", "2026-11-30"]


def _nothing() -> dict[str, str]:
    return {"cost": "0.000000", "currency": "USD", "estimated_cost": "0.000000"}


async def test_an_unknown_cost_is_null_and_counted(database: UsageDatabase, reports: UsageReports) -> None:
    """What nobody knows the price of is not free: null where nothing is known, and a count beside what is."""
    unknown = {"cost": None, "unpriced": "no price is known", "price_source": ""}
    await database.add("t_a", "2026-11-01T10:00:00+00:00", **unknown, model="strange")
    await database.add("t_a", "2026-11-01T11:00:00+00:00", **unknown, model="strange", source="estimated")
    await database.add("t_a", "2026-11-01T12:00:00+00:00", unpriced="searches", model="small")
    await database.add("t_a", "2026-11-01T13:00:00+00:00", cost=0, model="free")
    found = await report(reports, "t_a", ("group_by", "model"))
    assert [(row["model"], row["cost"], row["unpriced_requests"]) for row in found["data"]] == [
        ("free", "0.000000", 0),
        ("small", "0.000070", 1),
        ("strange", None, 2),
    ]
    (total,) = found["totals"]
    assert (total["requests"], total["cost"], total["unpriced_requests"]) == (4, "0.000070", 3)


async def test_a_tenant_sees_its_own_and_never_what_its_former_self_used(
    database: UsageDatabase, reports: UsageReports
) -> None:
    """The namespace is the same, the key is not: keys come from the namespace's UID."""
    await database.add("t_before", "2026-11-02T10:00:00+00:00", tenant="acme")
    await database.add("t_now", "2026-11-03T10:00:00+00:00", tenant="acme")
    await database.add("t_other", "2026-11-03T10:00:00+00:00", tenant="globex")
    found = await report(reports, "t_now")
    assert [row["day"] for row in found["data"]] == ["2026-11-03"]
    assert found["totals"][0]["requests"] == 1
    assert (await report(reports, "t_nobody"))["totals"][0]["requests"] == 0


async def test_rows_of_the_release_before_have_operation_and_purpose(
    database: UsageDatabase, reports: UsageReports
) -> None:
    """They say both in one word, and add up with the rows of this release."""
    for former in ("chat", "stream", "search", "embedding"):
        await database.add("t_a", "2026-11-02T10:00:00+00:00", operation=None, purpose=None, road=former)
    await database.add("t_a", "2026-11-02T10:00:00+00:00", operation="embeddings", purpose="search", streamed=False)
    found = await report(reports, "t_a", ("group_by", "operation,purpose"))
    assert [(row["operation"], row["purpose"], row["requests"]) for row in found["data"]] == [
        ("chat", "chat", 2),
        ("embeddings", "other", 1),
        ("embeddings", "search", 2),
    ]


async def test_groups_and_filters(database: UsageDatabase, reports: UsageReports) -> None:
    """Any groups in any order; what has no assistant or user says so; filters hold for totals too."""
    await database.add("t_a", "2026-11-02T10:00:00+00:00", user_id="ada")
    await database.add("t_a", "2026-11-02T10:00:00+00:00", user_id="bob", model="large", cost=500)
    await database.add(
        "t_a",
        "2026-11-02T10:00:00+00:00",
        scope="",
        name="handbook",
        operation="embeddings",
        purpose="ingest",
        user_id=None,
        cost=1,
    )
    await database.add("t_a", "2026-11-02T10:00:00+00:00", user_id="ada", currency="EUR")
    found = await report(reports, "t_a", ("group_by", "user,model"))
    assert [(row["user"], row["model"], row["currency"], row["requests"]) for row in found["data"]] == [
        (None, "small", "USD", 1),
        ("ada", "small", "EUR", 1),
        ("ada", "small", "USD", 1),
        ("bob", "large", "USD", 1),
    ]
    assert [(total["currency"], total["cost"]) for total in found["totals"]] == [
        ("EUR", "0.000070"),
        ("USD", "0.000571"),
    ]
    found = await report(reports, "t_a", ("group_by", "assistant,operation,purpose,provider"), ("user", "bob"))
    assert [list(row.values())[:4] for row in found["data"]] == [["support", "chat", "chat", "demo"]]
    assert [total["requests"] for total in found["totals"]] == [1]
    found = await report(reports, "t_a", ("group_by", "assistant"), ("assistant", "support"))
    assert sum(total["requests"] for total in found["totals"]) == 3
    hostile = await report(reports, "t_a", ("user", "x' OR '1'='1"), ("assistant", "support; DROP TABLE x"))
    assert hostile["data"] == []


async def test_pages_follow_each_other_without_gap_or_repetition(
    database: UsageDatabase, reports: UsageReports
) -> None:
    """Also when entries are added in between; the totals are those of the whole on every page."""
    for number in range(7):
        await database.add("t_a", f"2026-11-{number + 1:02}T10:00:00+00:00", user_id=None if number % 2 else "ada")
    seen: list[tuple[str, str | None]] = []
    question = [("group_by", "day,user"), ("limit", "3")]
    found = await report(reports, "t_a", *question)
    while True:
        seen += [(row["day"], row["user"]) for row in found["data"]]
        if found["next_cursor"] is None:
            break
        await database.add("t_a", "2026-11-01T11:00:00+00:00", user_id="zoe")
        found = await report(reports, "t_a", *question, ("cursor", found["next_cursor"]))
        assert found["totals"][0]["requests"] > 7
    days = [day for day, _ in seen]
    assert [day for day in days if day != "2026-11-01"] == [f"2026-11-{day:02}" for day in range(2, 8)]
    assert len(set(seen)) == len(seen)


def _entry(call: str, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "call": call,
        "tenant": "acme",
        "name": "support",
        "scope": "support",
        "operation": "chat",
        "purpose": "chat",
        "request": "r",
        "user": "ada",
        "provider": "demo",
        "model": "small",
        "input": 3,
        "output": 4,
        "source": "estimated",
        "cost": 9,
        "started": 1_793_700_000_000_000,
        "duration": 5,
        "outcome": "ok",
        **changes,
    }
    return encode_entry(LedgerEntry(**fields))


async def test_what_waits_in_redis_is_told_apart_and_never_twice(
    database: UsageDatabase, redis_store: stores.Redis
) -> None:
    """An entry that is in both stores for a moment is counted once; one of another time or filter is left out."""
    tenant = naming.tenant_key(secrets.token_hex(4))
    at = "2026-11-03T10:00:00+00:00"
    micros = int(datetime.fromisoformat(at).timestamp() * 1e6)
    october = int(datetime(2026, 10, 3, tzinfo=UTC).timestamp() * 1e6)
    await database.add(tenant, at, call="both", started=datetime(2026, 11, 3, 9, 59, tzinfo=UTC))
    redis = Redis(redis_store.gateway_url, SCRIPT)
    reports = UsageReports.of(database.url, redis)
    try:
        async with Client.from_url(redis_store.gateway_url, protocol=2, driver_info=None) as client:
            stream = naming.ledger_stream(tenant)
            for moment, entry in (
                (micros, _entry("both", started=micros)),
                (micros, _entry("waits", started=micros)),
                (micros, _entry("bobs", user="bob", started=micros)),
                (october, _entry("old", started=october)),
            ):
                await client.xadd(stream, {"at": str(moment), "entry": entry})
            found = await report(reports, tenant)
            assert found["totals"][0]["requests"] == 1
            assert found["pending"]["totals"][0]["requests"] == 2
            assert (
                found["pending"]["totals"][0]["cost"] == "0.000018" == found["pending"]["totals"][0]["estimated_cost"]
            )
            assert found["pending"]["complete"] is True
            found = await report(reports, tenant, ("user", "bob"))
            assert (found["totals"][0]["requests"], found["pending"]["totals"][0]["requests"]) == (0, 1)
            await client.xadd(stream, {"at": "x", "entry": b"{"})
            assert (await report(reports, tenant))["pending"]["complete"] is False
    finally:
        await reports.close()
        await redis.close()


async def test_without_redis_the_report_says_that_it_does_not_know_what_waits(database: UsageDatabase) -> None:
    """The ledger's figures are still given; `pending` is null instead of a zero that nobody counted."""
    await database.add("t_a", "2026-11-02T10:00:00+00:00")
    redis = Redis("redis://gateway:x@127.0.0.1:1/0", SCRIPT)
    reports = UsageReports.of(database.url, redis)
    try:
        found = await report(reports, "t_a")
    finally:
        await reports.close()
        await redis.close()
    assert found["totals"][0]["requests"] == 1
    assert found["pending"] is None


@pytest.mark.parametrize(
    "url", ["postgresql://gateway:hunter2@127.0.0.1:1/none", "postgresql://gateway:hunter2@127.0.0.1:x/none"]
)
async def test_postgres_away_is_a_503_that_says_when_to_come_back(url: str) -> None:
    """With a code of its own and without the password; calls go on."""
    reports = UsageReports.of(url, None)
    with pytest.raises(GatewayError) as caught:
        await report(reports, "t_a")
    await reports.close()
    assert (caught.value.status, caught.value.code) == (503, "usage_unavailable")
    assert caught.value.headers["retry-after"] == "5"
    assert "hunter2" not in f"{caught.value!r} {caught.value.body()!r} {reports!r}"


async def test_a_report_that_takes_too_long_is_given_up_and_the_next_one_works(database: UsageDatabase) -> None:
    """Somebody holds the table: 503 after the time for a report, and nothing is left running in Postgres."""
    reports = UsageReports(LedgerDatabase(database.url), None, report_seconds=0.5)
    holder = await asyncpg.connect(database.owner_url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE ledger_entries IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(GatewayError) as caught:
                await report(reports, "t_a")
            assert caught.value.code == "usage_unavailable"
            async with asyncio.timeout(5):
                while await _waiting_for_locks(holder):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        assert (await report(reports, "t_a"))["totals"][0]["requests"] == 0
    finally:
        await holder.close()
        await reports.close()


async def _waiting_for_locks(connection: asyncpg.Connection[Any]) -> int:
    return await connection.fetchval(
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE NOT l.granted AND d.datname = current_database()"
    )


async def test_a_connection_that_was_cut_is_replaced(database: UsageDatabase, reports: UsageReports) -> None:
    """A restart of Postgres costs one answer at most."""
    await report(reports, "t_a")
    owner = await asyncpg.connect(database.owner_url)
    login = database.url.partition("//")[2].partition(":")[0]
    await owner.execute(f'GRANT "{login}" TO current_user')
    await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", login)
    await owner.close()
    with contextlib.suppress(GatewayError):
        await report(reports, "t_a")
    assert (await report(reports, "t_a"))["totals"][0]["requests"] == 0


# --- through the gateway ---------------------------------------------------------------------------------------------


@pytest.fixture
async def gateway(settings: Callable[..., Settings], database: UsageDatabase) -> AsyncIterator[Running]:
    """A gateway with a ledger, whose provider has a price."""
    made = settings(ledger_url=database.url)
    document = yaml.safe_load(made.catalog_file.read_text())
    document["providers"]["demo"]["models"] = {"*": {"inputPerMillion": "10", "outputPerMillion": "20"}}
    made.catalog_file.write_text(yaml.safe_dump(document))
    async with running(made) as started:
        yield started


async def test_the_gateway_reports_to_the_tenant_that_asks(
    cluster: Cluster, gateway: Running, upstream: Provider
) -> None:
    """Its calls, with their users and cost, in the ledger or on the way there; and nothing of its former self."""
    namespace = f"usage-{secrets.token_hex(3)}"
    former = TenantIdentity(namespace=namespace, uid="former", key=naming.tenant_key(f"former-{namespace}"))
    cluster.put_policy(policy(namespace, ["good"], time_zone=BERLIN))
    token = {"Authorization": f"Bearer {cluster.token(namespace)}"}
    await _policy_loaded(gateway, namespace)
    body = {"model": "good", "messages": [{"role": "user", "content": "Hi"}]}
    for user in ("ada", "ädä"):
        headers = {**token, "x-assistant-user": user}
        async with gateway.client.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200
    async with asyncio.timeout(10):
        while _requests(found := await _usage(gateway, token)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert found["time_zone"] == BERLIN
    costs = [float(total["cost"]) for total in found["totals"] + found["pending"]["totals"]]
    assert sum(costs) == pytest.approx(2 * (11 * 10 + 4 * 20) / 1e6)
    assert _requests(await _usage(gateway, token, user="ädä")) == 1
    async with gateway.client.get(f"{gateway.url}/v1/usage") as answer:
        assert answer.status == 401
    async with gateway.client.get(f"{gateway.url}/v1/usage?limit=x", headers=token) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["param"]) == (400, "invalid_limit", "limit")
    cluster.delete_policy(policy(namespace, []))
    cluster.put_policy(policy(namespace, ["good"], tenant=former))
    async with asyncio.timeout(10):
        while _requests(await _usage(gateway, token)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_text_that_is_none_in_a_users_name_does_not_make_a_call_free(cluster: Cluster, gateway: Running) -> None:
    """Bytes that are not UTF-8 are replaced, so that the entry can be written."""
    namespace = f"usage-{secrets.token_hex(3)}"
    cluster.put_policy(policy(namespace, ["good"]))
    token = f"Bearer {cluster.token(namespace)}"
    await _policy_loaded(gateway, namespace)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
    body = b'{"model":"good","messages":[{"role":"user","content":"Hi"}]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"x-assistant-user: ad\xffa\r\nConnection: close\r\n\r\n" + body)
    assert b" 200 " in (await reader.read()).split(b"\r\n")[0]
    writer.close()
    async with asyncio.timeout(10):
        while _requests(await _usage(gateway, {"Authorization": token})) < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _requests(found: dict[str, Any]) -> int:
    return sum(total["requests"] for total in found["totals"] + found["pending"]["totals"])


async def _usage(gateway: Running, headers: dict[str, str], **parameters: str) -> dict[str, Any]:
    async with gateway.client.get(f"{gateway.url}/v1/usage", params=parameters, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def _policy_loaded(gateway: Running, namespace: str) -> None:
    async with asyncio.timeout(10):
        while gateway.server._gateway._policies.get(namespace) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_without_a_ledger_the_gateway_says_so(
    cluster: Cluster, settings: Callable[..., Settings], upstream: Provider
) -> None:
    """503 with the same code as when Postgres is away."""
    namespace = f"usage-{secrets.token_hex(3)}"
    cluster.put_policy(policy(namespace, ["good"]))
    token = {"Authorization": f"Bearer {cluster.token(namespace)}"}
    async with running(settings(ledger_url="")) as gateway:
        await _policy_loaded(gateway, namespace)
        answer: aiohttp.ClientResponse
        async with gateway.client.get(f"{gateway.url}/v1/usage", headers=token) as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["code"] == "usage_unavailable"
