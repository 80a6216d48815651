"""A real Prometheus scrapes every metric of ours; every query of every panel returns data, and every rule works."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from assistant_cluster.stores import free_ports
from assistant_monitoring.dashboards.panels import View
from assistant_monitoring.dashboards.views import VIEWS
from assistant_monitoring.rules import alerts
from assistant_observability import metrics

ROOT = Path(__file__).parents[3]
SERVER = Path(__file__).parent / "support" / "exposition_process.py"
SECONDS = 180.0  # for series to appear; on a quiet machine it takes ten
# Of the cluster, which is not there: kube-state-metrics and the kubelet.
ABSENT = {"AssistantPodCrashLooping", "AssistantStoreDiskFilling"}

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="no prometheus: `make test` installs Debian's package as root"
    ),
]


class Prometheus:
    """A running one."""

    def __init__(self, url: str, parts: str, client: httpx.Client) -> None:
        self.url, self.parts, self.client = url, parts, client

    def ask(self, path: str, **parameters: str) -> Any:
        """Return what its API answers."""
        answer = self.client.get(f"{self.url}/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def values(self, expr: str) -> list[float]:
        """Return the numbers that an expression has now."""
        found = self.ask("query", query=expr)["result"]
        return [value for sample in found if (value := float(sample["value"][1])) == value]

    def fill(self, waiting: dict[str, str]) -> bool:
        """Take out of `waiting` the expressions that have a value now; return whether none is left."""
        for title in [title for title, expr in waiting.items() if self.values(expr)]:
            del waiting[title]
        return not waiting


@contextmanager
def process(command: list[str], url: str, log: Path) -> Iterator[None]:
    """Run a program until the end of the block, once it answers."""
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until(lambda: answers(url), lambda: f"{command[0]} does not answer: {log.read_text()}")
        yield
    finally:
        started.terminate()
        started.wait(30)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def until(condition: Callable[[], object], otherwise: Callable[[], str]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.3)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with our rules, beside the parts' metrics; labels of targets are those that the chart gives them."""
    folder = tmp_path_factory.mktemp("prometheus")
    port, parts = free_ports(2)
    labels = {
        "operator": {"namespace": "assistant-platform"},
        "gateway": {"namespace": "assistant-platform"},
        "api": {"namespace": "acme", "tenant": "acme"},
        "worker": {"namespace": "acme", "tenant": "acme"},
    }
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "5s"},
        "rule_files": [str(ROOT / "observability" / "alerts" / "rules.yaml")],
        "scrape_configs": [
            {
                "job_name": f"assistant-{part}",
                "metrics_path": f"/{part}",
                "static_configs": [{"targets": [f"127.0.0.1:{parts}"], "labels": given}],
            }
            for part, given in labels.items()
        ],
    }
    (folder / "prometheus.json").write_text(json.dumps(config))
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    served = f"http://127.0.0.1:{parts}"
    with (
        httpx.Client(timeout=30) as client,
        process([sys.executable, str(SERVER), str(parts)], f"{served}/gateway", folder / "parts.log"),
        process(command, f"http://127.0.0.1:{port}/-/ready", folder / "prometheus.log"),
    ):
        yield Prometheus(f"http://127.0.0.1:{port}", served, client)


def filled(expr: str) -> str:
    """Return an expression as Grafana asks it, with all of each variable chosen."""
    for name, value in (("namespace", ".*"), ("tenant", ".*"), ("provider", ".*"), ("__rate_interval", "1m")):
        expr = expr.replace(f"${name}", value)
    assert "$" not in expr
    return expr


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_query_of_a_panel_returns_data(prometheus: Prometheus, view: View) -> None:
    """None is excused."""
    waiting = {f"{panel.title}: {query.expr}": filled(query.expr) for panel in view.panels for query in panel.queries}
    until(lambda: prometheus.fill(waiting), lambda: f"no data: {waiting}")


def test_every_choice_of_a_view_has_values(prometheus: Prometheus) -> None:
    """The series that fill the variables are there, with their labels."""
    for variable in {variable for view in VIEWS for variable in view.variables}:
        series, label = variable.labels.removeprefix("label_values(").removesuffix(")").split(", ")
        until(
            lambda series=series, label=label: prometheus.ask("series", **{"match[]": f'{series}{{{label}!=""}}'}),
            lambda variable=variable: variable.labels,
        )


def test_every_rule_works(prometheus: Prometheus) -> None:
    """Each is evaluated without an error, and what is recorded has values."""

    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in rules()), lambda: "not all rules were evaluated")
    assert [rule for rule in rules() if rule["health"] != "ok"] == []
    waiting = {rule["name"]: rule["name"] for rule in rules() if rule["type"] == "recording"}
    until(lambda: prometheus.fill(waiting), lambda: f"no value: {waiting}")


def test_every_alert_looks_at_series_that_are_there(prometheus: Prometheus) -> None:
    """Each series of its expression has a value with its labels: a wrong one would keep an alert silent for ever."""
    looked = {selector for alert in alerts() if alert.name not in ABSENT for selector in selectors(alert.expr)}
    waiting = {selector: f"count({selector})" for selector in looked}
    until(lambda: prometheus.fill(waiting), lambda: f"not there: {waiting}")


def selectors(expr: str) -> set[str]:
    """Return the series of an expression, with what their labels are to be."""
    names = {family.name for part in metrics.PARTS.values() for collector in part.own for family in collector.collect()}
    ours = "|".join(sorted(names, key=len, reverse=True))
    found = set(re.findall(rf"(?:{ours})(?:_total|_bucket|_count|_sum)?(?:{{[^}}]*}})?|assistant:[\w:]+", expr))
    assert found
    return found


@pytest.mark.parametrize("part", metrics.PARTS)
def test_what_a_part_says_is_as_prometheus_wants_it(prometheus: Prometheus, part: str) -> None:
    """promtool finds nothing to say about names, helps, types and units."""
    text = prometheus.client.get(f"{prometheus.parts}/{part}").content
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
