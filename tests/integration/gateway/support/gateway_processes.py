"""The gateway as a process that a test starts, and can kill."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from assistant_gateway.config import Settings


@dataclass
class Started:
    """A process that was started, and where it listens."""

    process: asyncio.subprocess.Process
    log: Path
    ready_after: float
    url: str
    operations: str

    def lines(self) -> list[dict]:
        """Return the log, decoded: every line has to be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """Return a pod's environment; Redis' address comes from a file, as in a pod."""
    values = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.model_dump().items() if value != ""}
    secrets = settings.catalog_file.parent / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "redis_url").write_text(values.pop("GATEWAY_REDIS_URL") + "\n")
    return {"PATH": os.environ["PATH"], **values, "GATEWAY_SECRETS_DIR": str(secrets), **more}


@asynccontextmanager
async def process(settings: Settings, name: str = "log", **more: str) -> AsyncIterator[Started]:
    """Start `python -m assistant_gateway` and wait until it is ready; `name` is its log's."""
    log = settings.catalog_file.parent / name
    began = time.monotonic()
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "assistant_gateway", env=environment(settings, **more), stderr=output
        )
    try:
        async with asyncio.timeout(40), aiohttp.ClientSession() as client:
            while True:
                listening = [line for line in log.read_text().splitlines() if "gateway listening" in line]
                if listening:
                    ports = json.loads(listening[0])
                    operations = f"http://127.0.0.1:{ports['metrics_port']}"
                    async with client.get(f"{operations}/readyz") as answer:
                        if answer.status == 200:
                            break
                assert child.returncode is None, log.read_text()
                await asyncio.sleep(0.01)
        ready_after = time.monotonic() - began
        yield Started(child, log, ready_after, f"http://127.0.0.1:{ports['port']}", operations)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
