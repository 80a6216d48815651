"""`python -m assistant_gateway`: the gateway's process."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from pydantic import ValidationError

from assistant_gateway.capacity import garbage
from assistant_gateway.config import Settings
from assistant_gateway.providers.catalog import CatalogError
from assistant_gateway.server import serve
from assistant_observability import logs, traces


def main() -> int:
    """Read the settings and serve; a setting that cannot be used ends the process with one clear sentence."""
    try:
        settings = Settings()  # type: ignore[call-arg]  # from the environment
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = "GATEWAY_" + "_".join(str(part) for part in problem["loc"]).upper()
            sys.stderr.write(f"{name}: {problem['msg']}\n")
        return 2
    logs.configure("assistant-gateway", settings.log_format, settings.log_level)
    provider = traces.configure("assistant-gateway")
    garbage.begin()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except (CatalogError, ValueError, OSError) as error:
        logs.logger(__name__).error("gateway cannot start", error=str(error))
        return 1
    finally:
        provider.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
