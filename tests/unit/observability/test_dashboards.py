"""The views are up to date, whole, and ask for nothing that no part says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from vocabulary import TARGET, grouped, known, selectors

from assistant_monitoring import rules
from assistant_monitoring.dashboards.panels import NEXT, Panel, View, render
from assistant_monitoring.dashboards.views import VIEWS
from assistant_monitoring.rules import alerts

FOLDER = Path(__file__).parents[3] / "observability" / "dashboards"
PANELS = [(view, panel) for view in VIEWS for panel in view.panels]
EXPRESSIONS = {
    **{
        f"{view.name}: {panel.title} {number}": query.expr
        for view, panel in PANELS
        for number, query in enumerate(panel.queries)
    },
    **{
        f"rule {rule.get('alert') or rule['record']} {number}": rule["expr"]
        for group in rules.groups()
        for number, rule in enumerate(group["rules"])
    },
}
KNOWN = known()
panels = pytest.mark.parametrize(("view", "panel"), PANELS, ids=lambda item: getattr(item, "title", ""))


def shown(view: View) -> list[dict[str, Any]]:
    """Return the panels of a view's file, without its rows."""
    document = json.loads((FOLDER / f"{view.name}.json").read_text())
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def test_there_are_five_views() -> None:
    """They are the ones that the guide names, and there is no file of another."""
    assert [view.title for view in VIEWS] == ["Fleet", "Tenant", "Models", "Knowledge", "Platform"]
    assert {path.stem for path in FOLDER.glob("*")} == {view.name for view in VIEWS} == set(NEXT)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_file_is_what_grafanas_schema_knows(view: View) -> None:
    """Read as Grafana's types and written again, nothing is lost: no field is unknown, none has another type."""
    text = (FOLDER / f"{view.name}.json").read_text()
    read = Dashboard.from_json(json.loads(text))
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == json.loads(text)
    assert text == render(view)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_no_two_panels_overlap(view: View) -> None:
    """Each has a place of its own on Grafana's 24 columns."""
    taken = [
        (x, y)
        for panel in shown(view)
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


@panels
def test_a_panel_explains_itself(view: View, panel: Panel) -> None:
    """A unit, one sentence of what it shows, a reason for being empty, and a way on, all in the file."""
    (written,) = (found for found in shown(view) if found["title"] == panel.title)
    assert written["fieldConfig"]["defaults"]["unit"] == panel.unit
    assert re.fullmatch(r"[A-Z0-9][^.]*\.", written["description"]), "one sentence"
    assert len(written["fieldConfig"]["defaults"]["noValue"]) > 10
    assert written["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    (link,) = written["links"]
    assert link["url"].startswith(f"/d/assistant-{panel.leads}?")
    assert panel.leads != view.name
    have = {"datasource", *(variable.name for variable in view.variables)}
    assert set(re.findall(r"\$\{(\w+):queryparam\}", link["url"])) == have & {"datasource", *NEXT[panel.leads][1]}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_asks_for_what_there_is(name: str) -> None:
    """Every series is one that a part, a rule or the cluster has, and every label is one of its own."""
    expr = EXPRESSIONS[name]
    asked = list(selectors(expr))
    assert asked
    for series, labels in asked:
        assert series in KNOWN, series
        assert labels <= KNOWN[series] | TARGET, (series, labels)
    possible = set().union(*(KNOWN[series] for series, _ in asked)) | TARGET
    assert grouped(expr) <= possible


def test_every_metric_of_ours_is_looked_at() -> None:
    """What no panel and no alert asks for is counted for nobody; those that are left have a reason."""
    asked = {series for expr in EXPRESSIONS.values() for series, _ in selectors(expr)}
    families = {re.sub(r"_(total|bucket|count|sum)$", "", series) for series in asked}
    ours = {series for series in KNOWN if series.startswith(("assistant_", "gen_ai_"))}
    assert not {series for series in ours if re.sub(r"_(total|bucket|count|sum)$", "", series) not in families}


def test_alerts_lead_to_views() -> None:
    """The dashboard of every alert is one of these."""
    assert {alert.dashboard for alert in alerts()} <= {view.uid for view in VIEWS}
