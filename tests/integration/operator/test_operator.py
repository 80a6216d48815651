"""A whole operator: watches, queue, Lease, probes of its own, and nothing but the rights that the chart gives it."""

import asyncio
import json
import logging
import subprocess
import time

import aiohttp
import kopf
import pytest
import yaml
from operator_world import all_objects, condition, eventually, running

from assistant_cluster.binaries import ensure
from assistant_crds import naming
from assistant_operator import handlers
from assistant_operator.errors import NotLeaderError


@pytest.fixture(scope="session")
def rights(request):
    """The chart's manifests of the operator's rights, with `the-platform` for its namespace."""
    chart = str(request.config.rootpath / "charts" / "assistant-platform")
    command = [*ensure("helm").command(), "template", "x", chart, "--namespace", "the-platform"]
    command += ["--kube-version", "1.34.0", "--show-only", "templates/operator/rbac.yaml"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.fixture
def limited(world, kube, tmp_path, monkeypatch, rights):
    """Make KUBECONFIG that of the operator's ServiceAccount, with the rights that the chart gives it."""
    account = json.dumps({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "assistant-operator"}})
    text = f"{account}\n---\n{rights.replace('the-platform', world.settings.namespace)}"
    done = kube.kubectl("apply", "--namespace", world.settings.namespace, "--filename", "-", input=text)
    assert done.returncode == 0, done.stderr
    token = kube.kubectl("create", "token", "assistant-operator", "--namespace", world.settings.namespace)
    config = yaml.safe_load(kube.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.stdout.strip()}
    file = tmp_path / "operator.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    return f"system:serviceaccount:{world.settings.namespace}:assistant-operator"


async def test_an_assistant_becomes_ready_by_itself(world, limited):
    """With the chart's rights alone the operator sees a new Assistant, serves it within seconds, and removes it."""
    async with running(world.settings, world.pod_port):
        await asyncio.sleep(2)
        started = time.monotonic()
        await world.assistant()
        await world.knowledge_base()
        await eventually(lambda: world.is_ready("Assistant", "support"))
        await eventually(lambda: world.is_ready("KnowledgeBase", "handbook"))
        print(f"ready after {time.monotonic() - started:.1f} s")
        await world.delete("Assistant", "support")
        await world.delete("KnowledgeBase", "handbook")

        async def is_gone():
            return not await all_objects(world.cluster, world.namespace) and not await world.get("Assistant", "support")

        await eventually(is_gone)


async def test_resources_that_were_there_before_are_found(world, limited):
    """What was applied while no operator ran is served once one runs."""
    await world.assistant()
    async with running(world.settings, world.pod_port):
        await eventually(lambda: world.is_ready("Assistant", "support"))


async def test_events_wake_the_operator(world, limited):
    """A referenced Secret or ConfigMap, a Tenant and a deleted child are noticed at once, not at the next resync."""
    reference = {"name": "llm", "key": "token"}
    own = {"name": "m", "endpoint": {"url": "https://llm.example.com/v1", "apiKeySecretRef": reference}}
    prompts = {"name": "prompts", "key": "p"}
    async with running(world.settings, world.pod_port):
        await world.assistant("a", model=own)
        await world.assistant("b", instructionsFrom={"configMapKeyRef": prompts})

        async def both_wait():
            found = [await world.get("Assistant", name) for name in "ab"]
            return all(condition(item, "RefsResolved").get("status") == "False" for item in found)

        await eventually(both_wait)
        await asyncio.sleep(1)
        started = time.monotonic()
        metadata = {"name": "llm", "namespace": world.namespace}
        await world.cluster.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": "x"}}
        )
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "name": "prompts"}}
        await world.cluster.apply({**config_map, "data": {"p": "Be kind."}})
        await eventually(lambda: world.is_ready("Assistant", "a"))
        await eventually(lambda: world.is_ready("Assistant", "b"))
        print(f"mended after {time.monotonic() - started:.1f} s")

        await world.cluster.apply({**config_map, "data": {"p": "Be brief."}})

        async def has_new_instructions():
            found = await world.cluster.get("ConfigMap", naming.CONFIG_MAP, world.namespace)
            return "Be brief." in found["data"][naming.CONFIG_KEY]

        await eventually(has_new_instructions)
        await world.cluster.delete("Service", naming.API, world.namespace)

        async def is_back():
            return ("Service", naming.API) in await all_objects(world.cluster, world.namespace)

        await eventually(is_back)


async def test_an_unreachable_model_shows_and_heals_within_fifteen_seconds(world, limited):
    """No event tells that a provider went away; the status knows within 15 seconds all the same."""
    async with running(world.settings, world.pod_port):
        await world.assistant()
        await eventually(lambda: world.is_ready("Assistant", "support"))
        world.gateway.unreachable.add("support")

        async def is_told():
            found = condition(await world.get("Assistant", "support"), "ModelReachable")
            return found["status"] == "False"

        await eventually(is_told, 15)
        world.gateway.unreachable.clear()
        await eventually(lambda: world.is_ready("Assistant", "support"), 15)


async def test_at_rest_the_api_server_sees_no_write(world, limited, kube):
    """Over two resyncs the audit log has no write by the operator but those to its Lease."""
    settings = world.settings.model_copy(update={"resync_seconds": 3.0, "observe_seconds": 3.0})
    async with running(settings, world.pod_port):
        await world.assistant()
        await world.knowledge_base()
        await eventually(lambda: world.is_ready("KnowledgeBase", "handbook"))
        await eventually(lambda: world.is_ready("Assistant", "support"))
        await asyncio.sleep(2)
        start = kube.audit_log.stat().st_size
        await asyncio.sleep(7.5)
        log = await asyncio.to_thread(kube.audit_log.read_bytes)
    events = [json.loads(line) for line in log[start:].splitlines()]
    mine = [event for event in events if event["user"]["username"] == limited]
    assert sum(event["verb"] in {"get", "list"} for event in mine) > 20
    writes = [
        (event["verb"], event["objectRef"])
        for event in mine
        if event["verb"] not in {"get", "list", "watch"} and event["objectRef"]["resource"] != "leases"
    ]
    assert writes == []


async def test_a_second_operator_takes_over(world, limited):
    """Of two operators one works; when it ends in good order the other goes on at once."""
    first = running(world.settings, world.pod_port)
    operator = await first.__aenter__()

    async def leads():
        return operator.lease.held

    await eventually(leads)
    other = world.settings.model_copy(update={"pod_name": "operator-2", "metrics_port": 0})
    async with running(other, world.pod_port) as second:
        await asyncio.sleep(3)
        assert not second.lease.held
        await first.__aexit__(None, None, None)
        assert operator.code == 0
        started = time.monotonic()
        await world.assistant()
        await eventually(lambda: world.is_ready("Assistant", "support"))
        print(f"taken over and ready after {time.monotonic() - started:.1f} s")


async def test_an_operator_that_loses_its_lease_stands_by_and_works_again(world):
    """While another holds the Lease the operator writes nothing; later it works, in the same process."""
    settings = world.settings.model_copy(update={"lease_seconds": 5.0})
    async with running(settings, world.pod_port) as operator:

        async def leads():
            return operator.lease.held

        async def stands_by():
            return not operator.lease.held

        await eventually(leads)
        lease = await world.cluster.get("Lease", settings.lease_name, settings.namespace)
        thief = {"holderIdentity": "thief", "renewTime": "2100-01-01T00:00:00.000000Z", "leaseDurationSeconds": 3600}
        lease["spec"] |= thief
        while not await world.cluster.replace(lease):
            lease = await world.cluster.get("Lease", settings.lease_name, settings.namespace)
            lease["spec"] |= thief
        await eventually(stands_by)
        await world.assistant()
        with pytest.raises(NotLeaderError):
            await operator.context.cluster.delete("Service", naming.API, world.namespace)
        assert not (await world.get("Assistant", "support")).get("status")
        lease = await world.cluster.get("Lease", settings.lease_name, settings.namespace)
        lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
        assert await world.cluster.replace(lease)
        await eventually(lambda: world.is_ready("Assistant", "support"))
    assert operator.code == 0


async def test_a_write_that_waits_for_its_turn_is_fenced(world):
    """A write that was begun by the leader and is sent when it leads no more does not reach the API server."""
    async with running(world.settings, world.pod_port) as operator:

        async def works():  # its term begins after it holds the Lease
            return operator.lease.held and operator._term == operator.lease.term

        await eventually(works)
        cluster, metadata = operator.context.cluster, {"name": "late", "namespace": world.namespace}
        asked = cluster._guard
        try:
            cluster._guard = lambda: None  # it led when it was asked
            operator._term -= 1  # and another has led by the time it is sent
            with pytest.raises(NotLeaderError):
                await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        finally:
            operator._term += 1
            cluster._guard = asked
        assert await world.cluster.get("ConfigMap", "late", world.namespace) is None


async def test_it_answers_probes_and_shows_its_metrics(world, limited):
    """`/livez`, `/readyz` and `/metrics` answer, with the figures of a reconcile among the metrics."""
    async with running(world.settings, world.pod_port):
        await world.assistant()
        await eventually(lambda: world.is_ready("Assistant", "support"))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{world.settings.metrics_port}") as session:
            for path in ("/livez", "/readyz"):
                async with session.get(path) as answer:
                    assert answer.status == 200, await answer.text()

            async def settled():
                async with session.get("/metrics") as answer:
                    text = await answer.text()
                return 'assistant_reconciles_total{result="settled"}' in text and text

            # The run that writes the status asks for one more, which finds everything as it was written.
            text = await eventually(settled)
        assert "assistant_operator_leader 1.0" in text
        assert "assistant_ledger_" not in text
        assert "assistant_model_" not in text
        assert 'assistant_cluster_writes_total{kind="Deployment",verb="apply"}' in text


async def test_the_watches_read_metadata_only(world, limited):
    """Neither a list nor a watch of the operator carries the content of an object, however many and large there are."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "large", "namespace": world.namespace}}
    await world.cluster.apply({**secret, "stringData": {"a": "x" * 100_000}})
    await world.assistant(instructions="Be kind.")
    connected = await handlers.log_in(logger=logging.getLogger(__name__), settings=kopf.OperatorSettings())
    http = connected.aiohttp_session
    try:
        for path in ("/api/v1/secrets", "/apis/assistantplatform.io/v1alpha1/assistants"):
            async with http.get(f"{connected.server}{path}") as answer:
                assert answer.status == 200
                items = (await answer.json())["items"]
            assert items
            assert not any({"data", "spec"} & set(item) for item in items)
            async with http.get(f"{connected.server}{path}", params={"watch": "true", "timeoutSeconds": "1"}) as answer:
                lines = [json.loads(line) async for line in answer.content]
            assert lines
            assert not any({"data", "spec"} & set(line["object"]) for line in lines)
        async with http.get(f"{connected.server}/apis/assistantplatform.io/v1alpha1") as answer:
            assert {found["name"] for found in (await answer.json())["resources"]} >= {"assistants", "tenants"}
    finally:
        await http.close()
