"""Policies on a real API server: how fast a change holds, and what stays when something breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from gateway_provider import Provider
from gateway_world import PLATFORM, ROUTES, Cluster, Running, identity, own_endpoint, policy, policy_secret, running

from assistant_crds.contracts import AssistantPolicy, ModelRoute, TenantProbe, digest


async def probe(cluster: Cluster, gateway: Running, namespace: str) -> dict | None:
    """Ask as the operator; None while the gateway has no policy."""
    headers = {"Authorization": f"Bearer {cluster.token(PLATFORM, 'assistant-operator')}"}
    async with gateway.client.get(f"{gateway.url}/internal/v1/tenants/{namespace}/probe", headers=headers) as answer:
        return await answer.json() if answer.status == 200 else None


async def within(seconds: float, condition: Callable[[], Awaitable[bool]]) -> float:
    """Wait for a condition; return how long it took."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_change_of_a_policy_holds_within_a_second(cluster: Cluster, gateway: Running) -> None:
    """A policy that is written, changed and removed is in force within a second each time."""

    async def generation() -> str | None:
        return (await probe(cluster, gateway, "policies") or {}).get("generation")

    for sealed in (
        cluster.put_policy(policy("policies", ["good"])),
        cluster.put_policy(policy("policies", ["good"], requests_per_minute=7)),
    ):

        async def loaded(wanted: str = sealed.generation) -> bool:
            return await generation() == wanted

        if sealed.requests_per_minute == 7:  # the last one written is the one that has to be there
            assert await within(1, loaded) < 1
    cluster.delete_policy(policy("policies", []))

    async def gone() -> bool:
        return await generation() is None

    assert await within(1, gone) < 1


async def test_policy_that_does_not_decode_harms_nobody(cluster: Cluster, gateway: Running) -> None:
    """A broken document leaves the last good one in force, and the neighbours untouched."""
    good = cluster.put_policy(policy("policies-broken", ["good"]))
    other = cluster.put_policy(policy("policies-other", ["good"]))

    async def both() -> bool:
        found = [await probe(cluster, gateway, p.tenant.namespace) for p in (good, other)]
        return [item and item["generation"] for item in found] == [good.generation, other.generation]

    await within(2, both)
    for document in (b"{", b"[]", b'{"tenant": 1}', b"\xff"):
        cluster.apply(policy_secret(good.tenant.key, document))
    await asyncio.sleep(0.3)
    assert await both()
    mended = cluster.put_policy(policy("policies-broken", ["good"], requests_per_minute=3))

    async def healed() -> bool:
        return (await probe(cluster, gateway, "policies-broken") or {})["generation"] == mended.generation

    await within(1, healed)


async def test_foreign_secrets_in_the_routes_namespace_are_ignored(cluster: Cluster, gateway: Running) -> None:
    """Only Secrets that the operator marked as its own count."""
    secret = policy_secret(identity("policies-foreign").key, b"{}")
    del secret["metadata"]["labels"]
    cluster.apply(secret)
    await asyncio.sleep(0.2)
    assert await probe(cluster, gateway, "policies-foreign") is None
    cluster.run("delete", "secret", "-n", ROUTES, secret["metadata"]["name"])


async def test_gateway_that_starts_finds_what_was_written_before(cluster: Cluster, settings: Callable) -> None:
    """A gateway is ready only with every policy that existed when it started."""
    sealed = cluster.put_policy(policy("policies-early", ["good"]))
    async with running(settings()) as gateway:
        found = await probe(cluster, gateway, "policies-early")
    assert found is not None
    assert found["generation"] == sealed.generation


async def test_policy_stays_while_the_api_server_is_away(cluster: Cluster, settings: Callable) -> None:
    """The last known policies serve while the API server is away; once it is back it is followed again."""
    sealed = cluster.put_policy(policy("policies-away", ["good"]))
    host, port = cluster.url.removeprefix("https://").split(":")
    relay = await _Relay.start(host, int(port))
    async with running(settings(kubernetes_url=f"https://127.0.0.1:{relay.port}")) as gateway:
        await relay.cut()
        await asyncio.sleep(0.5)
        found = await probe(cluster, gateway, "policies-away")
        assert found is not None
        assert found["generation"] == sealed.generation
        changed = cluster.put_policy(policy("policies-away", ["good"], requests_per_minute=9))
        await relay.restore()

        async def followed() -> bool:
            return (await probe(cluster, gateway, "policies-away") or {})["generation"] == changed.generation

        await within(8, followed)
    await relay.cut()


class _Relay:
    """A wire to the API server that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @classmethod
    async def start(cls, host: str, port: int) -> _Relay:
        relay = cls(host, port)
        await relay.restore()
        return relay

    async def restore(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer), return_exceptions=True)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


async def test_probe_tells_what_is_true_of_every_model(cluster: Cluster, gateway: Running, upstream: Provider) -> None:
    """Reachable, unknown model, unknown provider, refused model, unreachable, refused key: each has its own reason."""
    upstream.models = ["good", "embed"]
    changed = policy("policies-probe", ["good", "no-such-model"], models_allow=["demo/*", "gone/*", "nobody/*"])
    for name, provider in (("unknown", "nobody"), ("forbidden", "other"), ("down", "gone")):
        changed.assistants[name] = AssistantPolicy(route=ModelRoute(model="good", provider=provider))
    changed.assistants["inside"] = own_endpoint("http://127.0.0.1:1/v1", key="tenant-key")
    changed.assistants["nonsense"] = own_endpoint("ftp://x")
    sealed = cluster.put_policy(changed)

    async def loaded() -> bool:
        return (await probe(cluster, gateway, "policies-probe") or {}).get("generation") == sealed.generation

    await within(2, loaded)
    found = await probe(cluster, gateway, "policies-probe")
    reasons = {name: result["reason"] for name, result in found["assistants"].items()}
    assert reasons == {
        "good": "Reachable",
        "no-such-model": "ModelUnknown",
        "unknown": "ProviderUnknown",
        "forbidden": "ModelNotAllowed",
        "down": "ProviderUnreachable",
        "inside": "ProviderUnreachable",
        "nonsense": "ProviderUnreachable",
    }
    assert all(result["reachable"] == (result["reason"] == "Reachable") for result in found["assistants"].values())
    assert found["knowledgeBases"]["handbook"]["reason"] == "Reachable"
    assert "tenant-key" not in str(found)


async def test_a_tenant_sees_what_it_may_use(cluster: Cluster, gateway: Running, upstream: Provider) -> None:
    """Providers of its policy alone, with the models that they list and it may name; nobody else's key shows them."""
    upstream.models = ["good", "embed", "secret"]
    sealed = cluster.put_policy(policy("policies-offers", ["good"], models_allow=["demo/good", "demo/emb*", "gone/*"]))

    async def loaded() -> bool:
        return (await probe(cluster, gateway, "policies-offers") or {}).get("generation") == sealed.generation

    await within(2, loaded)
    headers = {"Authorization": f"Bearer {cluster.token('policies-offers')}"}
    async with gateway.client.get(f"{gateway.url}/v1/providers", headers=headers) as answer:
        found = {offer["provider"]: offer for offer in (await answer.json())["data"]}
    assert sorted(found) == ["demo", "gone"]
    assert (found["demo"]["models"], found["demo"]["allowed"]) == (["embed", "good"], ["good", "emb*"])
    assert (found["demo"]["available"], found["demo"]["complete"]) == (True, True)
    assert (found["gone"]["available"], found["gone"]["models"]) == (False, [])
    other = {"Authorization": f"Bearer {cluster.token(PLATFORM, 'assistant-operator')}"}
    async with gateway.client.get(f"{gateway.url}/v1/providers", headers=other) as answer:
        assert answer.status == 403


async def test_many_tenants_are_asked_about_at_once(cluster: Cluster, gateway: Running) -> None:
    """The operator alone may ask; what it knows already is not told again."""
    sealed = [cluster.put_policy(policy(f"policies-many-{letter}", ["good"])) for letter in "ab"]
    names = [item.tenant.namespace for item in sealed]

    async def ask(known: dict[str, str], account: str = "assistant-operator") -> tuple[int, dict]:
        headers = {"Authorization": f"Bearer {cluster.token(PLATFORM, account)}"}
        question = {"known": known}
        async with gateway.client.post(f"{gateway.url}/internal/v1/probes", json=question, headers=headers) as answer:
            return answer.status, (await answer.json()).get("changed")

    async def loaded() -> bool:
        _, changed = await ask(dict.fromkeys(names, ""))
        return [(changed[name] or {}).get("generation") for name in names] == [item.generation for item in sealed]

    await within(3, loaded)
    _, changed = await ask(dict.fromkeys([*names, "policies-nobody"], ""))
    assert changed["policies-nobody"] is None
    known = {name: digest(msgspec.convert(changed[name], type=TenantProbe)) for name in names}
    assert await ask(known) == (200, {})
    again = cluster.put_policy(policy(names[0], ["good"], requests_per_minute=3))

    async def told() -> bool:
        _, changed = await ask(known)
        return {name: probe["generation"] for name, probe in changed.items()} == {names[0]: again.generation}

    await within(3, told)
    assert (await ask(known, "assistant-api"))[0] == 403


async def test_probe_sees_a_refused_and_a_missing_key_and_their_mending(
    cluster: Cluster, settings: Callable, gateway: Running, upstream: Provider
) -> None:
    """A key file that is wrong, gone and right again is followed without a restart."""
    sealed = cluster.put_policy(policy("policies-key", ["good"]))
    key = settings().provider_keys_dir / "demo"

    async def reason(wanted: str) -> bool:
        found = await probe(cluster, gateway, "policies-key")
        return (
            bool(found) and found["generation"] == sealed.generation and found["assistants"]["good"]["reason"] == wanted
        )

    await within(3, lambda: reason("Reachable"))
    key.write_text("wrong-key\n")
    await within(3, lambda: reason("ProviderUnauthorized"))
    key.unlink()
    await within(3, lambda: reason("ProviderUnauthorized"))
    key.write_text("sk-platform-fresh\n")
    await within(3, lambda: reason("Reachable"))
    assert upstream.headers[-1]["Authorization"] == "Bearer sk-platform-fresh"


@pytest.mark.parametrize(
    "content", ["providers: [", "providers: {demo: {url: 3}}", "providers: {demo: {url: 'ftp://x'}}"]
)
async def test_broken_catalogue_leaves_the_last_good_one(
    content: str, cluster: Cluster, settings: Callable, gateway: Running
) -> None:
    """A catalogue that cannot be read changes nothing."""
    cluster.put_policy(policy("policies-catalogue", ["good"]))
    settings().catalog_file.write_text(content)
    await asyncio.sleep(1.3)

    async def fine() -> bool:
        found = await probe(cluster, gateway, "policies-catalogue")
        return bool(found) and found["assistants"]["good"]["reason"] == "Reachable"

    await within(2, fine)
