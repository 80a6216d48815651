"""Gateways are replaced one after the other, as a Deployment does it, while a tenant's API streams: no stream is cut.

The tenant API and the gateways are processes. Between them stands what a Service is to a client: a new connection leads
to one of the pods that are ready, a connection that is there stays where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from api_process import KEY, ApiProcess, api_process, assistant, document
from gateway_processes import Started, process
from gateway_world import Cluster, policy

from assistant_gateway.config import Settings

NAMESPACE, MODEL = "roll", "numbered"
GATEWAYS = 2
STREAMS = 200  # at least
EVERY_SECONDS = 0.08
NEWS_SECONDS = 2.0  # until clients' nodes have heard that a pod goes
WORDS = "".join(f"{number} " for number in range(20))


@dataclass
class Service:
    """New connections lead to one of `ports`."""

    ports: list[int] = field(default_factory=list)
    url: str = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", random.choice(self.ports))
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@dataclass
class Users:
    """Ask for one stream after another, whether those before have ended or not."""

    api: ApiProcess
    client: aiohttp.ClientSession
    tasks: list[asyncio.Task[str]] = field(default_factory=list)

    async def ask(self) -> str:
        """Read a stream to its end; return the text, or what went wrong."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}], "stream": True}
        url, headers = f"{self.api.url}/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}
        try:
            async with self.client.post(url, json=body, headers=headers) as answer:
                content = (await answer.read()).decode()
        except (aiohttp.ClientError, TimeoutError) as error:
            return repr(error)
        events = content.split("\n\n")
        if answer.status != 200 or events[-2:] != ["data: [DONE]", ""]:
            return f"{answer.status} ...{content[-300:]}"
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
        return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])

    async def keep_asking(self, enough: Callable[[], bool]) -> list[str]:
        """Ask at a steady rate until it is enough; return what became of each."""
        for number in itertools.count():
            if enough() and number >= STREAMS:
                return await asyncio.gather(*self.tasks)
            self.tasks.append(asyncio.create_task(self.ask()))
            await asyncio.sleep(EVERY_SECONDS)
        raise AssertionError("not reached")


async def replace(old: Started, new: Started, service: Service) -> int:
    """Let `new` take the place of `old`, which hears of its end before others do; return its exit code."""
    port = int(old.url.rpartition(":")[2])
    service.ports.append(int(new.url.rpartition(":")[2]))
    old.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(NEWS_SECONDS)
    service.ports.remove(port)
    return await old.process.wait()


@pytest.mark.timeout(240)
async def test_a_roll_of_the_gateways_cuts_no_stream(
    cluster: Cluster, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Both gateways are replaced while 200 streams begin, run and end: each of them is whole, and none is refused."""
    cluster.put_policy(policy(NAMESPACE, [MODEL]))
    # A stream that began late at a gateway that goes would have to be cut after so long.
    made = settings(drain_seconds=2.5, stream_seconds=10.0)
    text = made.catalog_file.read_text()
    made.catalog_file.write_text(text.replace("Seconds: 0.", "Seconds: 30."))
    service = Service()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(service.serving())
        names = itertools.count()

        async def start() -> Started:
            return await stack.enter_async_context(process(made, f"log-{next(names)}"))

        olds = [await start() for _ in range(GATEWAYS)]
        service.ports = [int(one.url.rpartition(":")[2]) for one in olds]
        api = stack.enter_context(api_process(tmp_path / "api", document(service.url, [assistant(MODEL)])))
        (tmp_path / "api" / "token").write_text(cluster.token(NAMESPACE))
        await asyncio.to_thread(api.wait_ready)
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        client = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        rolled = asyncio.Event()
        asking = asyncio.create_task(Users(api, client).keep_asking(rolled.is_set))
        await asyncio.sleep(2)
        codes = [await replace(old, await start(), service) for old in olds]
        rolled.set()
        answers = await asking
        lines = [line for old in olds for line in old.lines()]
    failed = [answer for answer in answers if answer != WORDS]
    late = [line for line in lines if line.get("code") == "shutting_down"]
    print(f"{len(answers)} streams, {len(late)} asked again elsewhere")
    assert not failed, f"{len(failed)} of {len(answers)} streams, the first: {failed[0]}"
    assert late, "no stream came to a gateway that was going"
    assert codes == [0] * GATEWAYS
    assert not [line for line in lines if line["event"] == "streams interrupted"]
