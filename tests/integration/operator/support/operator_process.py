"""Operators as processes of their own, each with its own ServiceAccount, so that they can be killed and stopped."""

import asyncio
import contextlib
import json
import os
import sys

import aiohttp
import yaml

from assistant_cluster import stores

_RUN = """
import asyncio, sys
from assistant_observability import logs
from assistant_operator import config
from assistant_operator.main import Operator
logs.configure("assistant-operator", "console", "INFO")
sys.exit(asyncio.run(Operator(config.load(), int(sys.argv[1])).run()))
"""


class OperatorProcess:
    """One operator. `user` is who it is to the API server."""

    def __init__(self, user, process, port):
        self.user = user
        self.process = process
        self._port = port

    async def leads(self):
        """Return whether it says that it leads; False when it does not answer."""
        try:
            timeout = aiohttp.ClientTimeout(total=5)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://127.0.0.1:{self._port}/metrics") as answer,
            ):
                return "assistant_operator_leader 1.0" in await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def send(self, number):
        """Send a signal."""
        os.kill(self.process.pid, number)


@contextlib.asynccontextmanager
async def operator_process(world, kube, name, folder):
    """Run an operator called `name` until left."""
    namespace = world.settings.namespace
    kube.kubectl("create", "serviceaccount", name, "-n", namespace)
    account = f"--serviceaccount={namespace}:{name}"
    kube.kubectl("create", "clusterrolebinding", f"{namespace}-{name}", "--clusterrole=cluster-admin", account)
    token = kube.kubectl("create", "token", name, "-n", namespace)
    assert token.returncode == 0, token.stderr
    config = yaml.safe_load(kube.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.stdout.strip()}
    kubeconfig = folder / f"{name}.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    (port,) = stores.free_ports(1)
    settings = world.settings.model_copy(update={"pod_name": name, "metrics_port": port, "lease_seconds": 5})
    path = os.pathsep.join(sys.path)
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    for key, value in settings.model_dump().items():
        plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if plain is not None:
            text = json.dumps(plain) if isinstance(plain, dict | list) else str(plain)
            environment[f"OPERATOR_{key.upper()}"] = text
    command = [sys.executable, "-c", _RUN, str(world.pod_port)]
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
    try:
        yield OperatorProcess(f"system:serviceaccount:{namespace}:{name}", process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
