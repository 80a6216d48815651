"""An honest tenant: asks at a steady rate, whether it is answered or not, and keeps what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp

EVERY_SECONDS = 0.1
ASK_AGAIN = {429, 503}  # with the pause that the answer names, at most twice: as OpenAI's clients do unasked
DIRECT = "direct"  # asks the provider past the platform: what the machine itself does to a request
KINDS = ("chat", "stream", "knowledge", DIRECT)
TEXT = "Invoices are due within thirty days. The office is open from nine to five. Parcels go out on Fridays. "

Samples = list[tuple[str, float]]  # kind of request, seconds


@dataclass
class Honest:
    """The tenant's users."""

    url: str  # of the tenant's API, or of the gateway
    key: str  # the tenant's API key, or a token for the gateway
    client: aiohttp.ClientSession
    provider_url: str = ""
    kinds: tuple[str, ...] = KINDS
    plain: str = "plain"  # the assistant without knowledge
    errors: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    asked_again: Counter[str] = field(default_factory=Counter)  # by status and code
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def headers(self) -> dict[str, str]:
        """The tenant's key."""
        return {"Authorization": f"Bearer {self.key}"}

    async def ask(self, kind: str, again: int = 2) -> float:
        """Ask and read the whole answer; return the seconds to the answer, or to the first event of a stream.

        A refusal that asks for patience is obeyed, as OpenAI's clients do; what that takes is in the seconds.
        """
        body = {
            "model": {DIRECT: DIRECT, "knowledge": "support"}.get(kind, self.plain),
            "messages": [{"role": "user", "content": "When are invoices due?"}],
            "stream": kind == "stream",
        }
        started = time.monotonic()
        url = f"{self.provider_url if kind == DIRECT else self.url}/v1/chat/completions"
        async with self.client.post(url, json=body, headers=self.headers) as answer:
            content = await answer.content.readany()
            took = time.monotonic() - started
            content += await answer.content.read()
            if answer.status in ASK_AGAIN and again:
                code = re.search(rb'"code": ?"(\w+)"', content)
                self.asked_again[f"{answer.status} {code[1].decode() if code else ''}"] += 1
                await asyncio.sleep(float(answer.headers.get("retry-after", "1")))
                return time.monotonic() - started + await self.ask(kind, again - 1)
            if answer.status != 200:
                self.errors.append(f"{kind}: {answer.status} {content[:300]!r}")
            elif kind == "stream" and not content.endswith(b"data: [DONE]\n\n"):
                self.errors.append(f"{kind}: the stream ended with {content[-300:]!r}")
        return took

    @property
    def refusals(self) -> int:
        """How many requests were refused, for a while or for good."""
        return len(self.errors) + self.asked_again.total()

    async def window(self, seconds: float) -> Samples:
        """Ask at a steady rate; a late answer delays no question."""
        samples: Samples = []

        async def one(kind: str) -> None:
            try:
                samples.append((kind, await self.ask(kind)))
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self.errors.append(f"{kind}: {error!r}")

        begun = time.monotonic()
        tasks = []
        for number in range(round(seconds / EVERY_SECONDS)):
            await asyncio.sleep(max(0.0, begun + number * EVERY_SECONDS - time.monotonic()))
            tasks.append(asyncio.create_task(one(self.kinds[next(self.numbers) % len(self.kinds)])))
        await asyncio.gather(*tasks)
        return samples

    async def upload(self) -> None:
        """Upload one more document."""
        form = aiohttp.FormData()
        content = f"Note {next(self.numbers)}. {TEXT * 5}"
        form.add_field("file", content.encode(), filename=f"note-{len(self.documents)}.txt", content_type="text/plain")
        url = f"{self.url}/api/v1/knowledge-bases/handbook/documents"
        async with self.client.post(url, data=form, headers=self.headers) as answer:
            if answer.status not in {200, 201, 202}:
                self.errors.append(f"upload: {answer.status} {(await answer.text())[:300]}")
                return
            self.documents.append((await answer.json())["id"])

    @contextlib.asynccontextmanager
    async def ingesting(self, every_seconds: float = 2.0) -> AsyncIterator[None]:
        """Upload documents meanwhile."""

        async def keep_uploading() -> None:
            while True:
                try:
                    await self.upload()
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self.errors.append(f"upload: {error!r}")
                await asyncio.sleep(every_seconds)

        task = asyncio.create_task(keep_uploading())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def wait_ingested(self, seconds: float = 60) -> None:
        """Wait until every document is ready."""
        url = f"{self.url}/api/v1/knowledge-bases/handbook/documents"
        waiting = list(self.documents)
        async with asyncio.timeout(seconds):
            while waiting:
                async with self.client.get(f"{url}/{waiting[0]}", headers=self.headers) as answer:
                    document = await answer.json()
                assert document.get("status") != "failed", document
                if document.get("status") == "ready":
                    waiting.pop(0)
                else:
                    await asyncio.sleep(0.2)


def slowdown(quiet: Samples, attacked: Samples, *, machine: bool = False) -> float:
    """Return p99 under attack over p99 without, each request in proportion to the usual time of its kind.

    `machine`: of the requests that went past the platform.
    """
    quiet, attacked = ([one for one in samples if (one[0] == DIRECT) is machine] for samples in (quiet, attacked))
    usual = defaultdict(list)
    for kind, seconds in quiet:
        usual[kind].append(seconds)
    middle = {kind: statistics.median(found) for kind, found in usual.items()}

    def p99(samples: Samples) -> float:
        ordered = sorted(seconds / middle[kind] for kind, seconds in samples)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]

    return p99(attacked) / p99(quiet)
