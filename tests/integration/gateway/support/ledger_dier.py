"""A drain that is killed between commit and removal: `python ledger_dier.py REDIS_URL LEDGER_URL TENANT`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from assistant_gateway.ledger.database import LedgerDatabase
from assistant_gateway.ledger.drain import move
from assistant_gateway.limits.quota import SCRIPT
from assistant_gateway.limits.redis import Redis


class Deadly(Redis):
    """Dies when it is asked to remove entries."""

    async def command(self, *arguments: str | bytes | int) -> Any:
        """Run a command, or die."""
        if arguments[0] == "XDEL":
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().command(*arguments)


async def main(redis_url: str, url: str, tenant: str) -> None:
    """Move one batch, nearly."""
    await move(Deadly(redis_url, SCRIPT), LedgerDatabase(url), tenant)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
