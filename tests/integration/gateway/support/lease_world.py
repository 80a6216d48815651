"""Gateway processes' limiters, each on a cable of its own to one Redis that tests can cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import msgspec
from redis.asyncio import Redis as Client

from assistant_gateway import errors
from assistant_gateway.ledger.entry import LedgerEntry, decode_entry, encode_entry
from assistant_gateway.ledger.limiter import limiter_with_ledger
from assistant_gateway.limits.leases import Rules
from assistant_gateway.limits.limit_scope import Amount, LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.limits.quota import SCRIPT, Admitted, Quota, Refused, ScopeUsage
from assistant_gateway.limits.redis import Redis, UnavailableError

RULES = Rules(
    share=8, least_tokens=100, least_cost=100, hold=30.0, admit=12.0, renew=0.3, idle=60.0, unwritten=0.3, grace=3.0
)


class Cable:
    """A connection to Redis that can be cut: nothing goes through, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._whole.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._whole.wait()
                sink.write(data)
                await sink.drain()
        sink.close()

    def cut(self) -> None:
        """Let nothing through."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again, also what was sent meanwhile."""
        self._whole.set()

    async def stop(self) -> None:
        """End."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()


@dataclass
class Process:
    """What one gateway process has for limits, and what its calls did by their own account."""

    redis: Redis
    limiter: Limiter
    cable: Cable
    tasks: list[asyncio.Task[None]]
    used: dict[str, tuple[str, Amount]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)


def terms_of(namespace: str, levels: Sequence[LimitScope], assistant: str, *, bounded: bool = True) -> LimitSet:
    """Return terms with or without `failurePolicy: Bounded`."""
    made = LimitSet.of(namespace, f"t_{namespace}", "UTC", levels, assistant=assistant)
    return msgspec.structs.replace(made, bounded=bounded)


@contextlib.asynccontextmanager
async def processes(count: int, port: int, url: str, rules: Rules = RULES) -> AsyncIterator[list[Process]]:
    """Start limiters and end them; whatever they hold at the end stays."""
    made: list[Process] = []
    try:
        for _ in range(count):
            cable = Cable(port)
            await cable.start()
            redis = Redis(url.replace(f":{port}/", f":{cable.port}/"), SCRIPT, answer_seconds=0.5)
            limiter = limiter_with_ledger(redis, rules=rules)
            tasks = [asyncio.create_task(redis.run()), asyncio.create_task(limiter.run())]
            made.append(Process(redis, limiter, cable, tasks))
        async with asyncio.timeout(30):
            while not all(process.redis.available for process in made):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        yield made
    finally:
        for process in made:
            for task in process.tasks:
                task.cancel()
            await asyncio.gather(*process.tasks, return_exceptions=True)
            await process.redis.close()
            await process.cable.stop()


def entry(call: str, assistant: str, used: Amount) -> bytes:
    """Return a ledger entry."""
    return encode_entry(
        LedgerEntry(
            call=call,
            tenant="n",
            name=assistant,
            scope=assistant,
            operation="chat",
            purpose="chat",
            request=call,
            provider="p",
            model="m",
            input=used.tokens,
            source="reported",
            cost=used.cost,
            started=1,
            duration=1,
            outcome="ok",
        )
    )


async def call(process: Process, terms: LimitSet, worst: Amount, *, seconds: float = 0.0, share: float = 1.0) -> str:
    """Make one call that uses a share of its worst case; return what became of it."""
    name = os.urandom(8).hex()
    try:
        answer = await process.limiter.reserve(terms, name, worst)
    except errors.GatewayError as error:
        process.outcomes[str(error.status)] += 1
        return str(error.status)
    outcome = {Admitted: "admitted", Refused: "refused"}.get(type(answer), "leased")
    process.outcomes[outcome] += 1
    if outcome != "refused":
        await asyncio.sleep(seconds)
        used = Amount(int(worst.tokens * share), int(worst.cost * share))
        process.used[name] = (terms.assistant, used)
        process.limiter.settle(terms.limits, name, used, entry(name, terms.assistant, used))
    return outcome


async def keep_calling(process: Process, terms: Sequence[LimitSet]) -> None:
    """Call until cancelled; a call under way is finished first."""
    while True:
        worst = Amount(random.randint(50, 1500), random.randint(50, 1500))
        seconds = random.uniform(0, 0.3) if random.random() < 0.95 else 4.0
        share = random.choice((1.0, random.random()))
        one = asyncio.ensure_future(call(process, random.choice(terms), worst, seconds=seconds, share=share))
        try:
            found = await asyncio.shield(one)
        except asyncio.CancelledError:
            await one
            raise
        await asyncio.sleep(0.02 if found in ("admitted", "leased") else random.uniform(0.05, 0.3))


async def usage_of(quota: Quota, terms: LimitSet) -> dict[str, ScopeUsage]:
    """Return the counters as soon as Redis tells them."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(UnavailableError):
                return await quota.usage(terms.limits)
            await asyncio.sleep(0.02)


async def entries_of(url: str, terms: LimitSet) -> list[LedgerEntry]:
    """Return the ledger's stream."""
    async with Client.from_url(url, protocol=2, driver_info=None) as client:
        found = await client.xrange(terms.limits.keys[4])
    return [decode_entry(fields[b"entry"]) for _, fields in found]
