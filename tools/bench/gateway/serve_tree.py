"""Start gateway and tenant API of one checkout, with stores of their own, and say where they are.

    python -P tools/bench/gateway/serve_tree.py CORE MOCK FOLDER

`against.py` starts it once per checkout, with PYTHONPATH at that checkout's folders, so that every module is of that
checkout: contracts, migrations, the parts of the benchmark. Ends with its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import subjects
from cluster import cluster
from gateway_world import policy_secret
from machine import spawn

from assistant_cluster import stores
from assistant_crds import contracts


def main() -> None:
    """Start, print one line, wait."""
    core, mock, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    path = os.environ["PYTHONPATH"]
    subjects.spawn = lambda name, command, environment, *rest: spawn(  # type: ignore[attr-defined]
        name, command, {**environment, "PYTHONPATH": path}, *rest
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        bench = subjects.Bench(folder, core, mock, stack)
        redis, postgres = stack.enter_context(stores.redis()), stack.enter_context(stores.postgres())
        policy = policy_secret(subjects.IDENTITY.key, contracts.encode(subjects.policy()))
        served = stack.enter_context(cluster([policy]))
        books = {"redis_url": redis.gateway_url, "ledger_url": subjects.ledger_of(postgres)}
        gateway = subjects.start_gateway(bench, served, books)
        mounted = {"postgres_dsn": subjects.database_of(postgres), "redis_url": redis.operator_url}
        chain = subjects.start_api(bench, served, gateway, mounted)
        found = {
            subject.name: {
                "address": subject.address,
                "model": subject.model,
                "headers": subject.headers,
                "pids": [process.pid for process in subject.processes],
            }
            for subject in (gateway, chain)
        }
        print(json.dumps({"subjects": found, "redis": redis.server.pid}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
