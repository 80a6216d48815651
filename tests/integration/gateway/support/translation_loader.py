"""A gateway whose catalogue has translated providers, in a process of its own: `python translation_loader.py FOLDER`.

Prints what loading did and what the first calls needed besides, as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import yaml
from native_provider import AWS_ID, AWS_SECRET, AWS_TOKEN, KEY, native_provider

from assistant_gateway.config import Settings
from assistant_gateway.errors import GatewayError
from assistant_gateway.providers.catalog import Catalog, Target
from assistant_gateway.providers.client import ProviderClient
from assistant_gateway.providers.egress import GuardedResolver
from assistant_gateway.providers.openai_wire import Upstream
from assistant_gateway.providers.warm_up import EMBEDDING, MODELS
from assistant_gateway.server import Server
from assistant_http.errors import HttpError

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlhAQABAAAAACw="}}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("good", {}),
    ("good", {"stream": True}),
    ("tool", {"tools": TOOLS}),
    ("tool", {"tools": TOOLS, "stream": True}),
    ("json", {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}}),
    ("thinks", {"reasoning_effort": "low", "max_tokens": 8000, "stream": True}),
    ("says-400", {}),
    ("cut", {"stream": True}),
    ("good", {"messages": [{"role": "user", "content": [{"type": "text", "text": "good"}, PICTURE]}]}),
]


class Heartbeat:
    """Notes for how long the event loop could not do anything else."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        """Beat, for ever."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - before - 0.001)


class Outside:
    """Notes which addresses anything in this process looks up or connects to, and from where it imports."""

    def __init__(self) -> None:
        self.addresses: set[str] = set()
        self.imported_on_the_loop: list[str] = []
        self.watching = False
        self._loop = threading.get_ident()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            self.addresses.add(str(arguments[0]))
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            self.addresses.add(str(arguments[1][0]))
        elif event == "import" and self.watching and threading.get_ident() == self._loop:
            self.imported_on_the_loop.append(str(arguments[0]))


def settings(folder: Path, url: str) -> Settings:
    """Write a catalogue of all four families at `url`."""
    aws = {"accessKeyId": AWS_ID, "secretAccessKey": AWS_SECRET, "sessionToken": AWS_TOKEN, "region": "eu-central-1"}
    (folder / "aws").write_text(json.dumps(aws))
    (folder / "key").write_text(KEY)
    providers = {kind: {"kind": kind, "url": url, "keyRef": "aws" if kind == "bedrock" else "key"} for kind in MODELS}
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"providers": providers}))
    return Settings(
        namespace="p",
        routes_namespace="r",
        catalog_file=folder / "catalog.yaml",
        provider_keys_dir=folder,
        host="127.0.0.1",
        port=0,
        metrics_port=0,
        kubernetes_url="http://127.0.0.1:9",
        kubernetes_credentials_dir=folder,
    )


async def call(dispatcher: ProviderClient, target: Target, *, embedding: bool, **request: Any) -> None:
    """Make a call and read its answer; it may fail."""
    fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in request.items()}
    try:
        answer = await dispatcher.send(target, embedding=embedding, fields=fields, trace={})
    except GatewayError:
        return
    try:
        while await answer.next():
            pass
    except HttpError:
        pass
    finally:
        answer.close()


async def main(folder: Path) -> dict[str, Any]:
    """Start a gateway, wait until LiteLLM is there, make every kind of call for the first time."""
    outside, heart = Outside(), Heartbeat()
    async with native_provider() as native:
        made = settings(folder, native.url)
        server = Server(made)
        beating = asyncio.create_task(heart.run())
        outside.watching = True
        started, collections = time.perf_counter(), gc.get_stats()[2]["collections"]
        await server.start()
        outside.imported_on_the_loop.clear()
        heart.longest = 0.0
        while "litellm" not in sys.modules:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.to_thread(sys.modules["assistant_gateway.providers.litellm"].load)  # waits until it is done
        seconds, longest = time.perf_counter() - started, heart.longest
        imported = list(outside.imported_on_the_loop)
        collections = gc.get_stats()[2]["collections"] - collections
        known = set(sys.modules)
        catalog = Catalog(made.catalog_file, made.provider_keys_dir)
        catalog.load()
        upstream = Upstream(GuardedResolver(list))
        dispatcher = ProviderClient(upstream, 2**20)
        asked = len(native.paths)
        for kind, model in MODELS.items():
            for what, fields in REQUESTS:
                request = {"model": model, "messages": [{"role": "user", "content": what}], **fields}
                await call(dispatcher, catalog.targets[kind], embedding=False, **request)
            if kind in EMBEDDING:
                await call(dispatcher, catalog.targets[kind], embedding=True, model=EMBEDDING[kind], input=["a"])
        beating.cancel()
        await upstream.close()
        await server.stop(drain_seconds=0)
    return {
        "seconds": seconds,
        "longest": longest,
        "imported_on_the_loop": imported,
        "collections": collections,
        "frozen": gc.get_freeze_count(),
        "imported_by_calls": sorted(set(sys.modules) - known),
        "calls": len(native.paths) - asked,
        "addresses": sorted(outside.addresses),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
