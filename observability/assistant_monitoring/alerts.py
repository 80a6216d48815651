"""What an alert is, and how it is written for Prometheus."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

PAGE, TICKET = "page", "ticket"
# Of all that wait for a value they show it: a share, or a number with its unit.
SHARE = "{{ $value | humanizePercentage }}"
SECONDS = "{{ $value | humanizeDuration }}"
RATE = '{{ printf "%.2f" $value }} per second'
NUMBER = "{{ $value | humanize }}"

Json = dict[str, Any]


@dataclass(frozen=True)
class Alert:
    """One alerting rule.

    `summary` is a sentence with the labels that say what is broken; `wait` is what Prometheus calls `for`.
    """

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    value: str
    dashboard: str
    objective: str = ""
    burn: str = ""  # of an objective's error budget: fast or slow

    @property
    def labels(self) -> dict[str, str]:
        """The labels that the rule adds."""
        given = {"severity": self.severity, "objective": self.objective, "burn": self.burn}
        return {name: value for name, value in given.items() if value}

    @property
    def dashboard_url(self) -> str:
        """The view that shows it, relative to Grafana, with what the alert knows of its variables."""
        named = [name for name in ("tenant", "provider") if re.search(rf"\$labels\.{name}\b", self.summary)]
        return "?".join(
            filter(None, (f"/d/{self.dashboard}", "&".join(f"var-{n}={{{{ $labels.{n} }}}}" for n in named)))
        )

    @property
    def runbook(self) -> str:
        """What to do, relative to this repository."""
        return f"docs/runbooks/{self.name}.md"

    def rule(self) -> Json:
        """Return the rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.wait,
            "labels": self.labels,
            "annotations": {
                "summary": self.summary,
                "value": self.value,
                "dashboard_url": self.dashboard_url,
                "runbook_url": self.runbook,
            },
        }
