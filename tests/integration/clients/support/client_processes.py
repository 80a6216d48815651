"""Processes of clients, in environments of their own."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

from client_platform import ClientPlatform

CLIENTS = Path(__file__).parents[3] / "clients"
_spec = importlib.util.spec_from_file_location("clients_environment", CLIENTS / "environment.py")
assert _spec is not None
assert _spec.loader is not None
environment = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(environment)


def run(platform: ClientPlatform, *command: str, cwd: Path = CLIENTS) -> str:
    """Run a client's process; its words are the failure's."""
    done = subprocess.run(
        command, cwd=cwd, env=platform.environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-4000:]}\n{platform.api.log()[-2000:]}"
    return done.stdout
