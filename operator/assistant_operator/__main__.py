"""Start the operator: `python -m assistant_operator`."""

from __future__ import annotations

import asyncio
import sys

from assistant_observability import logs, traces
from assistant_operator import config
from assistant_operator.main import Operator


async def _run(settings: config.Settings) -> int:
    return await Operator(settings).run()


def main() -> int:
    """Run until stopped; return the exit code."""
    settings = config.load()
    logs.configure("assistant-operator", settings.log_format, settings.log_level)
    provider = traces.configure("assistant-operator")
    try:
        return asyncio.run(_run(settings))
    finally:
        provider.shutdown()


if __name__ == "__main__":
    sys.exit(main())
