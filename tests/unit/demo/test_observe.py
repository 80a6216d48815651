"""What `make observe` starts: configurations that Prometheus takes, programs that are found again, counted traffic."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from assistant_demo import background, monitoring, observe, traffic
from assistant_demo.installation import MANIFESTS
from assistant_demo.kubernetes import Object

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool: `make test` installs Debian's package prometheus as root"
)


class Handler(BaseHTTPRequestHandler):
    """Answers the first call and refuses the others."""

    calls = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(429 if self.calls else 200)
        type(self).calls += 1
        self.send_header("content-length", "0")
        self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), type("Fresh", (Handler,), {"calls": 0}))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def pod(name: str, part: str, namespace: str, phase: str = "Running") -> Object:
    containers = [{"ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}]}]
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": part}},
        "spec": {"containers": containers},
        "status": {"phase": phase, "podIP": "198.18.0.7"},
    }


@needs_promtool
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """Asked of promtool, with the rules and targets that it names."""
    found = tmp_path / "targets.json"
    found.write_text(json.dumps(monitoring.targets([pod("a", "assistant-api", "acme")], "platform")))
    config = tmp_path / "prometheus.json"
    config.write_text(json.dumps(monitoring.prometheus(observe.RULES, found, "127.0.0.1:9093")))
    done = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_tenants_pods_get_a_tenant() -> None:
    """As the chart's monitors have it; a tenant's pod that calls itself a gateway is not asked as one."""
    pods = [
        pod("gateway", "assistant-gateway", "platform"),
        pod("api", "assistant-api", "acme"),
        pod("forged", "assistant-gateway", "acme"),
        pod("starting", "assistant-api", "acme", phase="Pending"),
    ]
    gateway = {"job": "assistant-gateway", "namespace": "platform", "pod": "gateway"}
    api = {"job": "assistant-api", "namespace": "acme", "pod": "api", "tenant": "acme"}
    found = monitoring.targets(pods, "platform")
    assert [group["labels"] for group in found] == [gateway, api]
    assert {target for group in found for target in group["targets"]} == {"198.18.0.7:9090"}


def test_every_tenant_of_the_traffic_is_declared() -> None:
    """Namespace and assistant; `make observe` calls them by these names."""
    objects = list(yaml.safe_load_all((MANIFESTS / "observe.yaml").read_text()))
    named = {(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in objects}
    expected = {("Namespace", "", name) for name in observe.PAUSES}
    assert named == expected | {("Assistant", name, observe.ASSISTANT) for name in observe.PAUSES}


def test_traffic_is_counted_by_what_became_of_it(server: str) -> None:
    """Answers by status; calls that never arrive by the error's name."""
    answered = traffic.Client("acme", server, "key", "support", 0.01)
    unreachable = traffic.Client("gone", "http://127.0.0.1:1", "key", "support", 0.01)
    said: list[str] = []
    traffic.run([answered, unreachable], 1.5, said.append)
    assert answered.results["200"] == 1
    assert answered.results["429"] > 1
    assert set(answered.results) == {"200", "429"}
    assert set(unreachable.results) == {"ConnectError"}
    assert str(answered).startswith("acme: 1 x 200, ")
    assert said


def test_a_program_is_found_again_and_ended(tmp_path: Path) -> None:
    """By its record; a process that took its number is not it."""
    process = background.start([sys.executable, "-c", "input(); import time; time.sleep(60)"], tmp_path / "log")
    process.wait(30)  # its standard input is empty
    assert "EOFError" in (tmp_path / "log").read_text()

    process = background.start(["sleep", "60"], tmp_path / "log")
    record = tmp_path / "sleep.record"
    background.record(record, process, url="http://127.0.0.1:1")
    known = background.running(record)
    assert known is not None
    assert known["url"] == "http://127.0.0.1:1"
    forged = tmp_path / "forged.record"
    forged.write_text(json.dumps(known | {"started": "Thu Jan  1 00:00:00 1970"}))
    assert background.running(forged) is None
    assert background.stop(forged) is None
    assert process.poll() is None
    assert background.stop(record) == process.pid
    assert process.wait(30) == -15
    assert not record.exists()
    assert background.stop(record) is None
