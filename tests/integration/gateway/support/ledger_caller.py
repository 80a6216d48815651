"""A gateway's process without HTTP: holds, settles, drains.

`python ledger_caller.py REDIS LEDGER TENANT CALLS JOURNAL`. Whatever it settles it writes to its journal first: at the
end the ledger has to hold exactly that. SIGTERM ends it in good order.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from ledger_tenant import entry

from assistant_gateway.errors import GatewayError
from assistant_gateway.ledger.database import LedgerDatabase
from assistant_gateway.ledger.drain import Drain
from assistant_gateway.ledger.entry import encode_entry
from assistant_gateway.ledger.limiter import limiter_with_ledger
from assistant_gateway.limits.limit_scope import Amount, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import SCRIPT, Admitted
from assistant_gateway.limits.redis import Redis

LEVELS = [LimitScope("tenant", tokens=10**9, budget=10**9), LimitScope("assistant", "support", tokens=10**8)]


def terms(tenant: str) -> LimitSet:
    """Return the limits of the callers."""
    return LimitSet.of("acme", tenant, "UTC", LEVELS, assistant="support")


async def calls(limiter: Limiter, tenant: str, journal: Path, ending: asyncio.Event) -> None:
    """Call until the end."""
    what = terms(tenant)
    with journal.open("ab", buffering=0) as book:
        while not ending.is_set():
            call = os.urandom(16).hex()
            try:
                answer = await limiter.reserve(what, call, Amount(100, 100))
            except GatewayError:  # 503, as the limits are far away
                book.write(b"refused\n")
                await asyncio.sleep(random.uniform(0.1, 0.3))
                continue
            assert isinstance(answer, Admitted)
            await asyncio.sleep(random.uniform(0.02, 0.1))
            tokens, cost = random.randint(1, 90), random.randint(0, 100)
            book.write(f"{call} {tokens} {cost}\n".encode())
            said = encode_entry(entry(call, input=tokens, output=0, cost=cost))
            limiter.settle(what.limits, call, Amount(tokens, cost), said)


async def main(redis_url: str, url: str, tenant: str, count: int, journal: Path) -> None:
    """Run until SIGTERM."""
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    redis, database = Redis(redis_url, SCRIPT, answer_seconds=0.5), LedgerDatabase(url)
    limiter = limiter_with_ledger(redis, database)
    drain = Drain(
        redis, database, lambda: [tenant], lambda found: limiter.expect(tenant, found.epoch, found.entries), 0.2
    )
    tasks = [asyncio.create_task(run()) for run in (redis.run, limiter.run, drain.run)]
    await asyncio.gather(*(calls(limiter, tenant, journal, ending) for _ in range(count)))
    await limiter.close(20)
    for task in tasks:
        task.cancel()
    await drain.close(20)
    os.write(1, b"ended in good order\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4]), Path(sys.argv[5])))
