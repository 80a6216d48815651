"""A whole operator as a process, and beside it a process that makes the pods that no kubelet makes.

python neighbour_operator.py operator CONFIGURATION.json
python neighbour_operator.py node CONFIGURATION.json
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parents[2] / "operator" / "support"
sys.path.append(str(SUPPORT))

from operator_world import Node, running  # noqa: E402

from assistant_observability import logs  # noqa: E402
from assistant_operator.adapters.cluster import Cluster  # noqa: E402
from assistant_operator.config import Settings  # noqa: E402


async def operate(configuration: dict[str, Any]) -> None:
    """Run an operator with these settings."""
    logs.configure("assistant-operator", "json", "INFO")
    async with running(Settings(**configuration["settings"]), configuration["pod_port"]):
        await asyncio.Event().wait()


async def be_a_node(configuration: dict[str, Any]) -> None:
    """Make the pods of some namespaces."""
    cluster = Cluster.connect(lambda: None)
    async with contextlib.AsyncExitStack() as stack:
        for namespace in configuration["namespaces"]:
            await stack.enter_async_context(Node(cluster, namespace, configuration["pod_port"]).run())
        await asyncio.Event().wait()


if __name__ == "__main__":
    role, file = sys.argv[1:]
    asyncio.run({"operator": operate, "node": be_a_node}[role](json.loads(Path(file).read_text())))
