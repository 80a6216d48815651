"""Questions over HTTP end in an answer or in a sentence that gives nothing away."""

import asyncio

import msgspec
import pytest
from aiohttp import web

from assistant_crds.contracts import ProbesAnswer, ProbesQuestion, Readiness, TenantProbe, digest, encode
from assistant_operator.adapters.probes import Probes
from assistant_operator.errors import ProbeError


@pytest.fixture
async def asked(tmp_path):
    """Probes of a server whose answer the test sets."""
    (tmp_path / "token").write_text("secret-token\n")
    state = {"handler": None, "requests": []}

    async def handle(request):
        state["requests"].append(request)
        return await state["handler"](request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    probes = Probes(f"http://127.0.0.1:{port}/", tmp_path / "token", port)
    yield probes, state
    await probes.close()
    await runner.cleanup()


def answering(status, body):
    async def handle(_request):
        return web.Response(status=status, body=body)

    return handle


async def test_the_gateway_is_asked_with_the_mounted_token(asked):
    """The token is read for each question, as the kubelet replaces it."""
    probes, state = asked
    probe = TenantProbe(generation="p1", assistants={}, knowledge_bases={})
    state["handler"] = answering(200, encode(probe))
    assert await probes.gateway("acme") == probe
    probes._token_file.write_text("next-token")
    await probes.gateway("acme")
    assert [request.headers["Authorization"] for request in state["requests"]] == [
        "Bearer secret-token",
        "Bearer next-token",
    ]
    assert state["requests"][0].path == "/internal/v1/tenants/acme/probe"


async def test_a_gateway_that_knows_no_such_tenant_is_no_fault(asked):
    """It may simply not have loaded the policy yet."""
    probes, state = asked
    state["handler"] = answering(404, b"")
    assert await probes.gateway("acme") is None


@pytest.mark.parametrize(("status", "body"), [(500, b""), (200, b"<html>"), (200, b"{}"), (302, b"")])
async def test_any_other_answer_of_the_gateway_is_told(asked, status, body):
    """A wrong status, a page, half a document, a redirect: each is a sentence, none is followed."""
    probes, state = asked
    state["handler"] = answering(status, body)
    with pytest.raises(ProbeError) as error:
        await probes.gateway("acme")
    assert "secret-token" not in str(error.value)
    assert len(state["requests"]) == 1


async def test_pods_answer_ready_or_not(asked):
    """The body counts, not the status: an unready pod says what is missing."""
    probes, state = asked
    readiness = Readiness(status="not_ready", config_generation="c1", checks={"gateway": "timeout"})
    state["handler"] = answering(503, encode(readiness))
    assert await probes.pod("127.0.0.1") == readiness
    state["handler"] = answering(200, b"nonsense")
    with pytest.raises(ProbeError, match="status 200"):
        await probes.pod("127.0.0.1")


async def test_a_pod_that_hangs_or_is_not_there_is_told_in_time(asked, monkeypatch):
    """No question waits for ever."""
    probes, state = asked
    monkeypatch.setattr("assistant_operator.adapters.probes.POD_SECONDS", 0.05)

    told = asyncio.Event()

    async def hang(_request):
        await told.wait()
        return web.Response()

    state["handler"] = hang
    with pytest.raises(ProbeError, match="no answer within"):
        await probes.pod("127.0.0.1")
    told.set()
    with pytest.raises(ProbeError, match="no connection"):
        await probes.pod("127.255.255.1")


async def test_without_a_token_the_gateway_is_not_asked(asked, tmp_path):
    """A missing token is told as such."""
    probes, state = asked
    (tmp_path / "token").unlink()
    with pytest.raises(ProbeError, match="no token"):
        await probes.gateway("acme")
    assert state["requests"] == []


async def test_a_service_is_asked_where_its_address_can_be_reached(asked):
    """Whoever answers there has to be the tenant's API, ready or not."""
    probes, state = asked
    probes._services = True
    state["handler"] = answering(503, encode(Readiness(status="not_ready", config_generation="c", checks={})))
    await probes.service("127.0.0.1")
    state["handler"] = answering(200, b"another's page")
    with pytest.raises(ProbeError):
        await probes.service("127.0.0.1")
    state["requests"].clear()
    await Probes("http://127.0.0.1:1", probes._token_file, probes._pod_port).service("127.0.0.1")
    assert state["requests"] == []


def tenant_probe(generation):
    return TenantProbe(generation=generation, assistants={}, knowledge_bases={})


async def test_questions_of_one_moment_go_out_together_and_bring_what_is_new(asked):
    """The second time the gateway is told what is known already, and says nothing of it."""
    probes, state = asked
    seen = []

    async def answer(request):
        known = msgspec.json.decode(await request.read(), type=ProbesQuestion).known
        seen.append(known)
        new = {name: tenant_probe("1") for name in known if name != "gone"} if len(seen) == 1 else {}
        return web.Response(body=encode(ProbesAnswer(changed=new | {"gone": None})))

    state["handler"] = answer
    for _ in range(2):
        found = await asyncio.gather(*(probes.gateway(name) for name in ("a", "b", "gone")))
        assert found == [tenant_probe("1"), tenant_probe("1"), None]
    assert [(request.method, request.path) for request in state["requests"]] == [("POST", "/internal/v1/probes")] * 2
    assert seen == [
        {"a": "", "b": "", "gone": ""},
        {"a": digest(tenant_probe("1")), "b": digest(tenant_probe("1")), "gone": ""},
    ]


async def test_an_older_gateway_is_asked_one_by_one(asked):
    """While the platform is upgraded the gateway may not know the question for many."""
    probes, state = asked

    async def answer(request):
        if request.method == "POST":
            return web.Response(status=404)
        return web.Response(body=encode(tenant_probe(request.path.split("/")[-2])))

    state["handler"] = answer
    found = await asyncio.gather(probes.gateway("a"), probes.gateway("b"))
    assert found == [tenant_probe("a"), tenant_probe("b")]


async def test_a_gateway_that_fails_fails_for_everyone_who_asked(asked):
    """And for nobody who asks later."""
    probes, state = asked
    state["handler"] = answering(500, b"")
    found = await asyncio.gather(probes.gateway("a"), probes.gateway("b"), return_exceptions=True)
    assert [type(item) for item in found] == [ProbeError, ProbeError]
    state["handler"] = answering(200, encode(tenant_probe("1")))
    assert await probes.gateway("a") == tenant_probe("1")
