"""Recording rules and multi-window burn-rate alerts of the objectives, after the SRE workbook.

A burn rate of 1 uses up the error budget in exactly 30 days. A page comes when 2 % of it is gone in an hour or 5 % in
six hours, a ticket at 10 % in a day or three; a short window beside each
long one ends the alert soon after the trouble.
"""

from __future__ import annotations

from assistant_monitoring.alerts import PAGE, SHARE, TICKET, Alert, Json
from assistant_monitoring.objectives import OBJECTIVES, Objective

PERIOD = "30d"
SECONDS = {"5m": 300, "30m": 1800, "1h": 3600, "2h": 7200, "6h": 21600, "1d": 86400, "3d": 259200}
# Long window, short window, burn rate.
FAST = (("1h", "5m", 14.4), ("6h", "30m", 6.0))
SLOW = (("1d", "2h", 3.0), ("3d", "6h", 1.0))


def series(objective: Objective, what: str) -> str:
    """Return the name of a recorded series."""
    return f"assistant:{objective.name}:{what}"


def recordings(objective: Objective) -> list[Json]:
    """Return the recorded series: the rates, the share of bad events by window, and how much of the budget is left."""
    total, bad = (expr.replace("WINDOW", "5m") for expr in (objective.total, objective.bad))
    rules = [
        {"record": series(objective, "events:rate5m"), "expr": total},
        {"record": series(objective, "bad:rate5m"), "expr": bad},
    ]
    for window in SECONDS:
        ratio = f"{objective.bad} / ({objective.total} > 0)".replace("WINDOW", window)
        rules.append({"record": series(objective, f"error_ratio:rate{window}"), "expr": ratio})
    spent = " / ".join(f"sum_over_time({series(objective, f'{what}:rate5m')}[{PERIOD}])" for what in ("bad", "events"))
    rules.append(
        {
            "record": series(objective, f"error_budget_left:ratio{PERIOD}"),
            "expr": f"1 - ({spent}) / {_budget(objective)}",
        }
    )
    return rules


def alerts(objective: Objective) -> list[Alert]:
    """Return the alert of a fast and that of a slow burn; they share a name and a runbook."""
    severities = ((FAST, PAGE if objective.page else TICKET), (SLOW, TICKET))
    return [
        Alert(
            name=objective.alert,
            expr="\nor\n".join(_burns(objective, *window) for window in windows),
            wait="2m" if windows is FAST else "15m",
            severity=severity,
            summary=objective.summary,
            value=SHARE,
            dashboard=objective.dashboard,
            objective=objective.name,
            burn="fast" if windows is FAST else "slow",
        )
        for windows, severity in severities
    ]


def groups() -> list[Json]:
    """Return one group of recording rules per objective."""
    return [
        {"name": f"assistant-objective-{objective.name}", "rules": recordings(objective)} for objective in OBJECTIVES
    ]


def _burns(objective: Objective, long: str, short: str, rate: float) -> str:
    limit = f"{rate * _budget(objective):.6g}"
    ratio = series(objective, "error_ratio:rate")
    # Rounded up and down by the extrapolation of rates, ten events may be 9.97.
    enough = f"{objective.bad.replace('WINDOW', long)} * {SECONDS[long]} > {objective.least - 0.5}"
    return f"({ratio}{long} > {limit} and {ratio}{short} > {limit} and {enough})"


def _budget(objective: Objective) -> float:
    return round(1 - objective.target, 9)
