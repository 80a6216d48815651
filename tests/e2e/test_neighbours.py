"""A hostile tenant attacks everything that it shares with others; its neighbour notices nothing. The long form of it is
`tests/integration/neighbours`."""

from __future__ import annotations

import contextlib
import json
import math
import re
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import e2e_attacker
import e2e_probe
import httpx
import pytest
from e2e_platform import CHAT, PLATFORM, NewTenant, Platform, Tenant, eventually
from e2e_probe import Probe

from assistant_crds import naming
from assistant_demo.settings import STAND_IN, STAND_IN_NAMESPACE, STAND_IN_PORT, STAND_IN_SERVICE

GATEWAY = f"http://assistant-gateway.{PLATFORM}.svc:8081"
SCOPES = 5
EVERY_SECONDS = 0.25
QUIET_SECONDS, ATTACK_SECONDS, PAIRS = 4.0, 12.0, 3
SLOWDOWN = 1.5
# Of each window the time that nine of ten requests keep to, and of the pairs the middle one: node, tests and attackers
# share two cores, and what a moment of it does to a few requests says nothing about the platform.
QUANTILE = 0.9
ASK_AGAIN = {429, 503}  # with the pause that the answer names, at most twice: as OpenAI's clients do unasked
GATEWAY_MEBIBYTES = 200


@dataclass
class Honest:
    """A tenant's users, who ask at a steady rate, and what they were told that it took.

    The model is asked the same at the same moments past the platform: what the machine does to any request.
    """

    client: httpx.Client
    model: httpx.Client
    errors: list[str] = field(default_factory=list)
    usage: list[tuple[int, int]] = field(default_factory=list)
    asked_again: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, *, past: bool = False) -> float:
        """Ask once, the model itself if `past`; return the seconds that the whole stream took, with pauses."""
        body = {
            "model": STAND_IN.chat if past else "plain",
            "messages": [{"role": "user", "content": "Please say hello in a long sentence with very many words."}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started = time.monotonic()
        try:
            for pause in (True, True, False):
                text, found = "", None
                with (self.model if past else self.client).stream("POST", "/v1/chat/completions", json=body) as answer:
                    for line in answer.iter_lines():
                        text += line[:200]
                        if line.startswith("data: {"):
                            found = json.loads(line[6:]).get("usage") or found
                if answer.status_code not in ASK_AGAIN or not pause:
                    break
                with self.lock:
                    self.asked_again += 1
                time.sleep(float(answer.headers.get("retry-after", "1")))
            assert answer.status_code == 200, f"{answer.status_code} {text[:300]}"
            assert text.endswith("data: [DONE]"), text[-300:]
            assert found, "no usage"
            if not past:
                with self.lock:
                    self.usage.append((found["prompt_tokens"], found["completion_tokens"]))
        except (AssertionError, httpx.HTTPError) as error:
            with self.lock:
                self.errors.append(("past the platform: " if past else "") + repr(error)[:400])
        return time.monotonic() - started

    def window(self, seconds: float) -> tuple[float, float]:
        """Ask at a steady rate; a late answer delays no question. Return a quantile of each way."""
        begun = time.monotonic()
        with ThreadPoolExecutor(128) as pool:
            asked = []
            for number in range(round(seconds / EVERY_SECONDS)):
                time.sleep(max(0.0, begun + number * EVERY_SECONDS - time.monotonic()))
                asked.append((pool.submit(self.ask), pool.submit(self.ask, past=True)))
            through, past = ([one[way].result() for one in asked] for way in (0, 1))
        return quantile(through), quantile(past)


@pytest.fixture(scope="module")
def hostile(shared_tenant: NewTenant) -> Tenant:
    """A tenant with several assistants, one of which answers slowly, and a knowledge base."""
    tenant = shared_tenant("hostile")
    tenant.knowledge_base("notes")
    for number in range(SCOPES):
        tenant.assistant(f"scope-{number}", model=dict(CHAT))
    tenant.assistant("slow", model={"provider": STAND_IN.provider, "name": "stand-in-slow"})
    tenant.wait_ready()
    return tenant


@pytest.fixture(scope="module")
def honest(shared_tenant: NewTenant) -> Tenant:
    """A tenant of its own: its bill must hold nothing but what this test asked."""
    tenant = shared_tenant("honest")
    tenant.knowledge_base()
    tenant.assistant("plain", limits={"tokensPerDay": 5_000_000, "requestsPerMinute": 6000})
    tenant.wait_ready()
    return tenant


@pytest.fixture(scope="module")
def attackers(shared_tenant: NewTenant) -> Probe:
    """A pod that is let to gateway and stores, as a tenant's own pods are."""
    labels = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY, naming.LABEL_NAME: "attacker"}
    return e2e_probe.start(shared_tenant("attacker"), "attacker", labels)


def restarts(platform: Platform) -> dict[str, int]:
    """Return how often each container of the platform's pods was restarted, by pod."""
    pods = platform.cluster.list("pods", PLATFORM)
    return {
        f"{pod['metadata']['name']} {pod['metadata']['uid']} {status['name']}": status["restartCount"]
        for pod in pods
        if pod["status"].get("phase") == "Running"
        for status in pod["status"].get("containerStatuses", [])
    }


def peaks(platform: Platform, name: str) -> list[float]:
    """Return the most memory, in MiB, that each process of a part held; none where its pods run elsewhere."""
    uids = {pod["metadata"]["uid"] for pod in platform.pods(PLATFORM, name)}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            cgroup = (folder / "cgroup").read_text()
            if any(uid in cgroup or uid.replace("-", "_") in cgroup for uid in uids):
                peak = re.search(r"VmHWM:\s+(\d+)", (folder / "status").read_text())
                found += [int(peak[1]) / 1024] if peak else []
    return found


def memory_limit(platform: Platform, name: str) -> float:
    """Return the memory limit of a part's container in MiB."""
    pod = platform.pods(PLATFORM, name)[0]
    limit = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
    number, unit = re.fullmatch(r"(\d+)([MG])i", limit).groups()
    return int(number) * {"M": 1, "G": 1024}[unit]


def quantile(samples: list[float]) -> float:
    """Return the value that nine of ten do not exceed (nearest rank)."""
    return sorted(samples)[math.ceil(len(samples) * QUANTILE) - 1]


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_a_hostile_tenant_costs_its_neighbour_nothing(
    platform: Platform, honest: Tenant, hostile: Tenant, attackers: Probe
) -> None:
    """No error, an exact bill, the usual latency and ingestion; no part restarts or passes its memory limit."""
    secret = platform.secret(hostile.namespace, naming.STORES_SECRET)
    configuration = {
        "gateway": GATEWAY,
        "token": e2e_probe.token(hostile, naming.API, naming.GATEWAY_AUDIENCE),
        "assistants": [f"scope-{number}" for number in range(SCOPES)],
        "slow": "slow",
        "base": "notes",
        "stores": {name: secret[name] for name in ("redis_url", "postgres_dsn")},
    }
    program = Path(e2e_attacker.__file__).read_text()
    before = restarts(platform)
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    seen: dict[str, dict[str, int]] = {}
    documents = []
    key = platform.secret(STAND_IN_NAMESPACE, "model-server")["api-key"]
    port = platform.forward(STAND_IN_NAMESPACE, f"service/{STAND_IN_SERVICE}", STAND_IN_PORT)
    headers = {"Authorization": f"Bearer {key}"}
    model = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False)
    with honest.http() as client, model, ThreadPoolExecutor(1) as background:
        users = Honest(client, model)
        users.window(2)
        for number in range(PAIRS):
            quiet = users.window(QUIET_SECONDS)
            attack = background.submit(
                attackers.python, program, json.dumps(configuration), str(ATTACK_SECONDS), seconds=120
            )
            documents.append(honest.upload(f"note-{number}.txt", f"Note {number}: the office opens at nine.".encode()))
            pairs.append((quiet, users.window(ATTACK_SECONDS)))
            for name, counts in attack.result().items():
                seen[name] = {key: seen.get(name, {}).get(key, 0) + count for key, count in counts.items()}
    for document in documents:
        honest.wait_document(document["id"], "ready")
    slower, machine = (statistics.median(attacked[way] / quiet[way] for quiet, attacked in pairs) for way in (0, 1))
    print(f"\nslowdown {slower:.2f}, past the platform {machine:.2f}; {users.asked_again} asked again; {pairs}; {seen}")
    assert not users.errors
    assert {name for name in e2e_attacker.COUNTS if not seen.get(name)} == set(), "an attack did nothing"
    assert restarts(platform) == before
    for name in ("assistant-operator", "assistant-gateway", "assistant-redis", "assistant-weaviate"):
        limit = GATEWAY_MEBIBYTES if name == "assistant-gateway" else memory_limit(platform, name)
        assert all(peak <= limit for peak in peaks(platform, name)), (name, peaks(platform, name))
    _bill_is_exact(honest, users.usage)
    assert slower <= SLOWDOWN * max(1.0, machine)


def _bill_is_exact(tenant: Tenant, usage: list[tuple[int, int]]) -> None:
    """The report of the tenant's chats says what its users' answers said, call by call and token by token."""

    def arrived() -> None:
        with tenant.http() as client:
            answer = client.get("/v1/usage", params={"group_by": "assistant"})
            assert answer.status_code == 200, answer.text
            report: dict[str, Any] = answer.json()
        (row,) = [row for row in report["data"] if row["assistant"] == "plain"]
        told = (row["requests"], row["input_tokens"], row["output_tokens"])
        assert told == (len(usage), sum(one[0] for one in usage), sum(one[1] for one in usage))
        assert row["estimated_requests"] == 0

    eventually(arrived, seconds=30, every=0.5)
