"""`python -m assistant_monitoring`: write rules and dashboards where Prometheus, Grafana and the chart find them."""

from __future__ import annotations

from pathlib import Path

from assistant_monitoring import rules
from assistant_monitoring.dashboards.panels import render
from assistant_monitoring.dashboards.views import VIEWS

ROOT = Path(__file__).parents[2]
CHART = Path("charts/assistant-platform/files/monitoring")  # Helm cannot reach outside of a chart


def files() -> dict[Path, str]:
    """Return what every generated file is to hold, by its path in the repository."""
    found = {path / "rules.yaml": rules.text() for path in (Path("observability/alerts"), CHART)}
    for path in (Path("observability/dashboards"), CHART / "dashboards"):
        found |= {path / f"{view.name}.json": render(view) for view in VIEWS}
    return found


def main() -> None:
    """Write every file."""
    for path, text in files().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)


if __name__ == "__main__":
    main()
