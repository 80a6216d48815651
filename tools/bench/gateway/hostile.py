"""The most memory that one gateway process needs while a hostile tenant does what it can, with its own server's help.

    python tools/bench/gateway/hostile.py [--seconds 8] [ATTACK ...]

The attacks are those of tests/integration/neighbours that go through the gateway: each for so many seconds by itself,
because all at once get into each other's way at the tenant's own share, and at last all. Leaves with 1 above 200 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[3]
NEIGHBOURS = ROOT / "tests" / "integration" / "neighbours" / "support"
sys.path += [str(ROOT / "tests" / "integration" / "gateway" / "support"), str(NEIGHBOURS)]

import subjects  # noqa: E402
import tools  # noqa: E402
from cluster import cluster  # noqa: E402
from gateway_world import policy_secret  # noqa: E402
from machine import pin, spawn, temporary_folder  # noqa: E402
from subjects import ASSISTANT, IDENTITY, Bench  # noqa: E402

from assistant_cluster import stores  # noqa: E402
from assistant_cluster.server import free_ports  # noqa: E402
from assistant_crds import contracts  # noqa: E402
from assistant_crds.contracts import AssistantPolicy, Endpoint, ModelRoute  # noqa: E402

BOUND = 200  # MiB
OWN = ("big-answer", "endless", "nested-usage", "silent")
ATTACKS = (
    "many_scopes",
    "large_bodies",
    "wide_text",
    "slow_bodies",
    "slow_readers",
    "endless_streams",
    "nested_usage",
    "nested_bodies",
    "tiers",
    "refused_calls",
    "idle_streams",
)


def memory(pid: int, name: str) -> float:
    """Return a figure of a process's status in MiB."""
    found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def attack(configuration: Path, named: Sequence[str], seconds: float, pid: int) -> None:
    """Attack in each of the named ways, then in all; print what the gateway's memory is after each."""
    attacker = subprocess.Popen(
        [sys.executable, str(NEIGHBOURS / "neighbour_attacker.py"), str(configuration)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert attacker.stdin is not None
    assert attacker.stdout is not None
    try:
        for attacks in [*([name] for name in named), named]:
            attacker.stdin.write(f"go {' '.join(attacks)}\n")
            attacker.stdin.flush()
            time.sleep(seconds)
            attacker.stdin.write("stop\n")
            attacker.stdin.flush()
            seen = json.loads(attacker.stdout.readline())
            told = {name: counts for name, counts in seen.items() if name in attacks}
            print(f"peak {memory(pid, 'VmHWM'):4.0f} MiB, now {memory(pid, 'VmRSS'):4.0f} MiB: {told}", flush=True)
    finally:
        attacker.kill()
        attacker.wait()


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", default=[], help=", ".join(ATTACKS))
    parser.add_argument("--seconds", type=float, default=8)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    first, second, *_ = sorted(os.sched_getaffinity(0))
    pin(second)
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        mock, own = free_ports(2)
        bench = Bench(folder, first, f"127.0.0.1:{mock}", stack, ["localhost"])
        subjects.start_mock(bench, tools.ends(), second)
        endpoint = spawn(
            "own", [sys.executable, str(NEIGHBOURS / "neighbour_endpoint.py"), str(own)], {}, folder, second
        )
        stack.callback(endpoint.stop)
        url = f"http://localhost:{own}/v1"
        routes = {name: ModelRoute(model=name, endpoint=Endpoint(url=url)) for name in OWN}
        policy = subjects.policy(
            poor=AssistantPolicy(route=ModelRoute(model="mock", provider="bench"), tokens_per_day=1),
            **{name: AssistantPolicy(route=route) for name, route in routes.items()},
        )
        redis, postgres = stack.enter_context(stores.redis()), stack.enter_context(stores.postgres())
        served = stack.enter_context(cluster([policy_secret(IDENTITY.key, contracts.encode(policy))]))
        books = {"redis_url": redis.gateway_url, "ledger_url": subjects.ledger_of(postgres)}
        gateway = subjects.start_gateway(bench, served, books)
        configuration = {
            "gateway_url": f"http://{gateway.address}",
            "token": gateway.headers["Authorization"].removeprefix("Bearer "),
            "assistants": [ASSISTANT],
            "own": {name: name for name in OWN},
            "poor": "poor",
            **dict.fromkeys(("api_url", "api_key", "redis_url", "postgres_dsn", "knowledge_base"), ""),
        }
        (folder / "attacker.json").write_text(json.dumps(configuration))
        pid = gateway.processes[0].pid
        print(f"at rest {memory(pid, 'VmRSS'):.0f} MiB", flush=True)
        attack(folder / "attacker.json", chosen.attacks or ATTACKS, chosen.seconds, pid)
        peak = memory(pid, "VmHWM")
        print(f"peak {peak:.0f} MiB, {memory(pid, 'VmRSS'):.0f} MiB after the attack; at most {BOUND} MiB wanted")
        return int(peak > BOUND)


if __name__ == "__main__":
    sys.exit(main())
