"""Every alert fires in time with words that help, is silent on noise and deploys, ends, and has a runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from alert_cases import CASES, Case, Firing

from assistant_monitoring import __main__ as generator
from assistant_monitoring import rules
from assistant_monitoring.alerts import PAGE, TICKET, Alert

ROOT = Path(__file__).parents[3]
RULES = ROOT / "observability" / "alerts" / "rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
PARTS = ("## What it means", "## How to see it", "## What to do", "## How to know it is over")
ALERTS = rules.alerts()
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool: `make test` installs Debian's package prometheus as root"
)


def promtool(*arguments: str) -> str:
    """Return what promtool says; fails with it when it finds fault."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expected(alert: Alert, firing: Firing) -> dict[str, object]:
    """Return what promtool is to find."""
    url = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: firing.labels[found[1]], alert.dashboard_url)
    return {
        "exp_labels": firing.labels | alert.labels,
        "exp_annotations": {
            "summary": firing.summary,
            "value": firing.value,
            "dashboard_url": url,
            "runbook_url": alert.runbook,
        },
    }


def groups_of(name: str) -> list[dict[str, object]]:
    """Return the alert's rules and what is recorded for them, as the rules file has them: the others take time."""
    objectives = {alert.objective for alert in ALERTS if alert.name == name}
    groups = yaml.safe_load(RULES.read_text())["groups"]
    recorded = [group for group in groups if group["name"].removeprefix("assistant-objective-") in objectives]
    alerting = [rule for group in groups for rule in group["rules"] if rule.get("alert") == name]
    return [*recorded, {"name": "alerts", "rules": alerting}]


def cases_of(case: Case) -> list[dict[str, object]]:
    """Return a case as promtool's tests."""
    by_burn = {alert.burn: alert for alert in ALERTS if alert.name == case.alert}
    fires = {case.at: case.fires, **case.later}
    trouble = [(time, [expected(by_burn[one.burn], one) for one in firings]) for time, firings in fires.items()]
    trouble += [(time, []) for time in case.silent]
    stretches = [("trouble", case.series, trouble)]
    stretches += [(why, series, [(time, []) for time in case.quiet_at]) for why, series in case.quiet.items()]
    return [
        {
            "name": name,
            "interval": case.interval,
            "input_series": [{"series": series_, "values": values} for series_, values in series.items()],
            "alert_rule_test": [
                {"eval_time": time, "alertname": case.alert, "exp_alerts": alerts} for time, alerts in checks
            ],
        }
        for name, series, checks in stretches
    ]


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_in_time_is_silent_on_noise_and_ends(case: Case, tmp_path: Path) -> None:
    """Asked of promtool: when it fires, with which labels and words; when it does not yet, and no more."""
    file = tmp_path / "test.yaml"
    groups = groups_of(case.alert)
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": groups}))
    file.write_text(
        json.dumps(
            {
                "rule_files": ["rules.yaml"],
                "evaluation_interval": case.interval,
                # Without it promtool evaluates the groups in an order of chance, and an alert sees what was recorded
                # for it now or an interval ago.
                "group_eval_order": [group["name"] for group in groups],
                "tests": cases_of(case),
            }
        )
    )
    promtool("test", "rules", str(file))


def test_every_alert_is_tried() -> None:
    """Each has a case with a time before it fires, one after it, and a quiet stretch."""
    assert sorted(case.alert for case in CASES) == sorted({alert.name for alert in ALERTS})
    for case in CASES:
        assert case.fires, case.alert
        assert case.quiet, case.alert
        seconds = {time: _seconds(time) for time in (case.at, *case.silent)}
        assert min(seconds.values()) < seconds[case.at] < max(seconds.values()), case.alert


def _seconds(time: str) -> int:
    return sum(int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"(\d+)([smh])", time))


@pytest.mark.parametrize("name", sorted({alert.name for alert in ALERTS}))
def test_every_alert_has_a_runbook(name: str) -> None:
    """What it means, how to see it, what to do, how to know that it is over, in this order."""
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == list(PARTS)
    assert all(len(part.split()) > 4 for part in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:])


def test_no_runbook_is_left_over() -> None:
    """A runbook of an alert that is gone would be looked for in vain."""
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name}-{alert.severity}{alert.burn}")
def test_an_alert_says_what_is_broken(alert: Alert) -> None:
    """A severity; a sentence that names each label that tells one firing from another; a value."""
    assert alert.severity in {PAGE, TICKET}
    assert alert.summary.endswith(".")
    assert alert.summary[0].isupper()
    assert alert.value
    kept = re.search(r"\bby \(([\w, ]+)\)", alert.expr)
    for label in kept[1].split(", ") if kept and "absent" not in alert.expr else ():
        renamed = re.search(rf'"(\w+)", "\$1", "{label}"', alert.expr)
        assert f"$labels.{renamed[1] if renamed else label}" in alert.summary


def test_the_rules_file_is_up_to_date() -> None:
    """What Prometheus loads, and the chart's copy of it, is what the code says."""
    for path, text in generator.files().items():
        assert (ROOT / path).read_text() == text, f"{path}: run `make monitoring`"


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    """Every expression parses and every name is allowed."""
    total = sum(len(group["rules"]) for group in yaml.safe_load(RULES.read_text())["groups"])
    assert f"SUCCESS: {total} rules found" in promtool("check", "rules", str(RULES))
