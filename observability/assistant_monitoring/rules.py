"""All rules in one file that Prometheus loads, and that the chart makes a PrometheusRule of."""

from __future__ import annotations

import yaml

from assistant_monitoring import burn
from assistant_monitoring.alerts import Alert, Json
from assistant_monitoring.causes import CAUSES
from assistant_monitoring.objectives import OBJECTIVES

HEADER = "# Written by `make monitoring` from observability/assistant_monitoring. Change that, not this.\n"


def alerts() -> list[Alert]:
    """Return every alert."""
    return [alert for group in alert_groups().values() for alert in group]


def alert_groups() -> dict[str, list[Alert]]:
    """Return every alert, by the group it is evaluated in."""
    return {
        "objectives": [alert for objective in OBJECTIVES for alert in burn.alerts(objective)],
        **{name: list(group) for name, group in CAUSES.items()},
    }


def groups() -> list[Json]:
    """Return all groups: what is recorded first, then what alerts on it."""
    return [
        *burn.groups(),
        *(
            {"name": f"assistant-{name}", "rules": [alert.rule() for alert in group]}
            for name, group in alert_groups().items()
        ),
    ]


def text() -> str:
    """Return the rules file."""
    return HEADER + yaml.safe_dump({"groups": groups()}, sort_keys=False, width=10_000, allow_unicode=True)
