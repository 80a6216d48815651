"""`make observe`: what an SRE sees of the running demo. Prometheus, Alertmanager, and traffic of four tenants."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from assistant_demo import background, machine, monitoring, traffic, up
from assistant_demo.errors import DemoError
from assistant_demo.installation import MANIFESTS, NAMESPACE, ROOT
from assistant_demo.kubernetes import Kubernetes, manifests
from assistant_demo.terminal import BOLD, DIM, Step, Terminal

RULES = ROOT / "observability" / "alerts" / "rules.yaml"
DASHBOARDS = ROOT / "observability" / "dashboards"
PROMETHEUS, ALERTMANAGER = "prometheus", "prometheus-alertmanager"  # Debian's packages and programs
PORTS = {PROMETHEUS: 9090, ALERTMANAGER: 9093}  # their usual ones; others where these are taken
DISCOVERY = "discovery"
PROGRAMS = (PROMETHEUS, ALERTMANAGER, DISCOVERY)
ASSISTANT = "concierge"
PAUSES = {"observe-slow": 4.0, "observe-broken": 2.0, "observe-limited": 2.0}  # seconds between two calls
READY_SECONDS = 120.0
START_SECONDS = 60.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """A program that runs beside the demo, and its page."""

    name: str
    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return what Prometheus's API answers."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30, trust_env=False)
        answer.raise_for_status()
        return answer.json()["data"]

    def page(self, name: str) -> str:
        """Return the address of one of Prometheus's pages: Debian's package has the older ones, at `/classic`."""
        address = f"{self.url}/{name}"
        return address if httpx.get(address, timeout=30, trust_env=False).is_success else f"{self.url}/classic/{name}"


def run(terminal: Terminal, minutes: float) -> None:
    """Start what is not started yet, make traffic, and say what it shows and where."""
    with machine.only_one():
        with terminal.step("Demo") as step:
            cluster, step.result = machine.running_node()
            _refuse_other_models(cluster)
        with terminal.step("Programs") as step:
            machine.packages((PROMETHEUS, ALERTMANAGER), step, purpose="`make observe`")
            step.result = ", ".join(shutil.which(name) or name for name in PORTS)
        with terminal.step("Alertmanager") as step:
            alertmanager = start_alertmanager(step)
            step.result = alertmanager.url
        with terminal.step("Prometheus") as step:
            prometheus = start_prometheus(cluster, alertmanager, step)
            step.result = prometheus.url
        with terminal.step("Tenants") as step:
            clients = tenants(cluster, step)
            step.result = ", ".join(client.tenant for client in clients)
        with terminal.step("Targets") as step:
            step.wait(lambda: _down(prometheus), seconds=READY_SECONDS, hint=f"Look at {prometheus.page('targets')}")
            step.result = f"{len(prometheus.ask('targets')['activeTargets'])} are up"
        with terminal.step("Traffic") as step:
            traffic.run(clients, minutes * 60, step.say)
            step.result = "; ".join(map(str, clients))
        show(terminal, prometheus, alertmanager)


def stop() -> None:
    """End what `run` started, and wait for it."""
    for name in PROGRAMS:
        pid = background.stop(_record(name))
        deadline = time.monotonic() + STOP_SECONDS
        while pid and time.monotonic() < deadline and _alive(pid):
            time.sleep(0.1)
        if pid and _alive(pid):
            os.kill(pid, signal.SIGKILL)


def start_alertmanager(step: Step) -> Server:
    """Start Alertmanager with its data in the checkout's folder, or find it running."""
    folder = _folder()
    config = folder / "alertmanager.json"
    config.write_text(json.dumps(monitoring.alertmanager()))
    options = (f"--config.file={config}", f"--storage.path={folder / 'alertmanager'}", "--cluster.listen-address=")
    return _start(ALERTMANAGER, options, step)


def start_prometheus(cluster: Kubernetes, alertmanager: Server, step: Step) -> Server:
    """Start Prometheus with the platform's rules, and the program that tells it of pods, or find them running."""
    folder = _folder()
    monitoring.write_targets(cluster, NAMESPACE, _targets())
    if background.running(_record(DISCOVERY)) is None:
        command = [sys.executable, "-m", "assistant_demo", "discover"]
        background.record(_record(DISCOVERY), background.start(command, folder / f"{DISCOVERY}.log"))
    config = folder / "prometheus.json"
    address = alertmanager.url.removeprefix("http://")
    config.write_text(json.dumps(monitoring.prometheus(RULES, _targets(), address), indent=2))
    options = (
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        "--storage.tsdb.retention.time=1d",
    )
    return _start(PROMETHEUS, options, step)


def discover() -> None:
    """Keep the file of Prometheus's targets up to date; a program of its own beside Prometheus."""
    cluster, _ = machine.running_node()
    monitoring.keep_writing_targets(cluster, NAMESPACE, _targets())


def tenants(cluster: Kubernetes, step: Step) -> list[traffic.Client]:
    """Apply the tenants that are in trouble; returns a client of each, and one of the demo's own."""
    cluster.apply(*manifests(MANIFESTS / "observe.yaml"))
    demo = up.connect(cluster, step, up.TENANT)
    clients = [traffic.Client(up.TENANT, demo.url, demo.key, up.ASSISTANT, 0.5)]
    for name, pause in PAUSES.items():
        step.wait(partial(_starting, cluster, name), seconds=READY_SECONDS, hint=f"Look at: kubectl get all -n {name}")
        running = up.connect(cluster, step, name)
        clients.append(traffic.Client(name, running.url, running.key, ASSISTANT, pause))
    return clients


def show(terminal: Terminal, prometheus: Server, alertmanager: Server) -> None:
    """Print the alerts there are, and where to look."""
    terminal.line()
    alerts = sorted(prometheus.ask("alerts")["alerts"], key=lambda alert: str(alert["state"]))
    terminal.line(terminal.styled("Alerts", BOLD) + ("" if alerts else ": none"))
    for alert in alerts:
        terminal.line(f"  {alert['state']:8} {alert['labels']['alertname']:28} {alert['annotations']['summary']}")
    terminal.line()
    terminal.line(f"  Prometheus    {prometheus.page('alerts')}    the rules: {prometheus.page('rules')}")
    terminal.line(f"  Alertmanager  amtool alert --alertmanager.url={alertmanager.url}    (Debian's has no page)")
    terminal.line(
        f"  Dashboards    {machine.shown(DASHBOARDS)}/*.json: import them into your Grafana (10 or newer), with"
    )
    terminal.line("                a Prometheus data source of the URL above. Grafana itself is not started here.")
    terminal.line(f"  On call       {machine.shown(ROOT / 'docs' / 'sre.md')}")
    terminal.line(terminal.styled("  Both go on until `make down`; `make observe` again makes more traffic.", DIM))


def _refuse_other_models(cluster: Kubernetes) -> None:
    assistant = cluster.get("assistant", up.ASSISTANT, up.TENANT)
    if assistant is None:
        raise DemoError("The demo is not there. Run `make demo` first.")
    if not str(assistant["spec"]["model"]["name"]).startswith("stand-in"):
        raise DemoError(
            "The demo answers with a model that may cost money, and this makes hundreds of calls. Run "
            "`make demo` without OPENAI_API_KEY and DEMO_MODEL_URL first."
        )


def _starting(cluster: Kubernetes, namespace: str) -> str | None:
    deployment = cluster.get("deployment", up.API_SERVICE, namespace) or {}
    if not deployment.get("status", {}).get("readyReplicas"):
        return f"the API of {namespace} starts"
    return None if cluster.get("secret", up.API_KEY_SECRET, namespace) else f"{namespace} has no API key yet"


def _down(prometheus: Server) -> str | None:
    targets = prometheus.ask("targets")["activeTargets"]
    if not targets:
        return "Prometheus has found no pod yet"
    down = [
        f"{target['labels'].get('pod')}: {target['lastError'] or 'not asked yet'}"
        for target in targets
        if target["health"] != "up"
    ]
    return "; ".join(down) or None


def _start(name: str, options: tuple[str, ...], step: Step) -> Server:
    record = _record(name)
    if known := background.running(record):
        return Server(name, known["url"])
    port = _free_port(PORTS[name])
    url = f"http://127.0.0.1:{port}"
    log = _folder() / f"{name}.log"
    process = background.start([name, *options, f"--web.listen-address=127.0.0.1:{port}"], log)
    background.record(record, process, url=url)

    def starting() -> str | None:
        if process.poll() is not None:
            raise DemoError(f"{name} ended at once:\n{log.read_text()[-1000:]}")
        try:
            return None if httpx.get(f"{url}/-/ready", timeout=5, trust_env=False).is_success else "starting"
        except httpx.TransportError:
            return "starting"

    step.wait(starting, seconds=START_SECONDS, hint=f"Look at {machine.shown(log)}", every=0.2)
    return Server(name, url)


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise DemoError("There is no free port on the loopback interface.")


def _folder() -> Path:
    folder = machine.folder() / "observe"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _targets() -> Path:
    return _folder() / "targets.json"


def _record(name: str) -> Path:
    return machine.folder() / "observe" / f"{name}.record"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
