"""What a view is made of, and how it becomes Grafana's JSON.

Every panel says its unit, what it shows in one sentence, why it may be empty, and which view comes next.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    GridPos,
    VariableHide,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TAG = "assistant-platform"
WIDTH, HEIGHT = 24, 8
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# Views by the last part of their uid, and the variables that a link hands on.
NEXT = {
    "fleet": ("Fleet", ("namespace",)),
    "tenant": ("Tenant", ("namespace", "tenant")),
    "models": ("Models", ("namespace", "tenant", "provider")),
    "knowledge": ("Knowledge", ("namespace", "tenant")),
    "platform": ("Platform", ("namespace",)),
}
Kind = Literal["lines", "number", "table"]
Built = TypeVar("Built", timeseries.Panel, stat.Panel, table.Panel)


@dataclass(frozen=True)
class Query:
    """One PromQL expression; `legend` names its series, in a table its column."""

    expr: str
    legend: str
    unit: str = ""  # of a table's column


@dataclass(frozen=True)
class Panel:
    """One panel. `empty` says why there may be nothing to see; `leads` is the view that says more."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    empty: str
    leads: str
    kind: Kind = "lines"
    width: int = 8
    height: int = HEIGHT
    by: str = ""  # of a table: the label that is its first column


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a view; `labels` is what Grafana asks Prometheus for its values."""

    name: str
    title: str
    labels: str
    many: bool = True


@dataclass(frozen=True)
class View:
    """One dashboard: rows of panels by the question that they answer."""

    name: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: dict[str, tuple[Panel, ...]] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """Its identifier, which links of alerts name."""
        return f"assistant-{self.name}"

    @property
    def panels(self) -> list[Panel]:
        """All of its panels."""
        return [panel for row in self.rows.values() for panel in row]


NAMESPACE = Variable("namespace", "Platform namespace", "label_values(assistant_operator_leader, namespace)")
TENANT = Variable("tenant", "Tenant", "label_values(assistant_tenant_resources, tenant)")
PROVIDER = Variable("provider", "Provider", "label_values(assistant_model_calls_total, provider)")


def render(view: View) -> str:
    """Return a view as the file that Grafana imports."""
    builder = (
        dashboard.Dashboard(f"Assistant Platform / {view.title}")
        .uid(view.uid)
        .description(view.description)
        .tags([TAG])
        .readonly()
        .refresh("1m")
        .time("now-6h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .links([_to_view(name, view) for name in NEXT if name != view.name])
    )
    for variable in view.variables:
        builder = builder.with_variable(_variable(variable))
    y = 0
    for title, panels in view.rows.items():
        builder = builder.with_row(dashboard.Row(title).grid_pos(GridPos(h=1, w=WIDTH, x=0, y=y)))
        y, x, tall = y + 1, 0, 0
        for panel in panels:
            if x + panel.width > WIDTH:
                y, x, tall = y + tall, 0, 0
            builder = builder.with_panel(_panel(panel, view).grid_pos(GridPos(h=panel.height, w=panel.width, x=x, y=y)))
            x, tall = x + panel.width, max(tall, panel.height)
        y += tall
    return json.dumps(builder.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def url(name: str, view: View, **given: str) -> str:
    """Return the way from a view to another, with the variables and the time chosen there; `given` replaces some."""
    have = {variable.name for variable in view.variables}
    chosen = [
        f"var-{key}={given[key]}" if key in given else f"${{{key}:queryparam}}"
        for key in NEXT[name][1]
        if key in have or key in given
    ]
    return f"/d/assistant-{name}?{'&'.join(['${datasource:queryparam}', *chosen, '${__url_time_range}'])}"


def _to_view(name: str, view: View) -> dashboard.DashboardLink:
    title, _ = NEXT[name]
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url(name, view))


def _variable(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.title)
        .query({"query": variable.labels, "refId": f"Variable-{variable.name}"})
        .datasource(SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .hide(VariableHide.DONT_HIDE)
        .multi(variable.many)
        .include_all(True)
        # Also what has no such label: not every way of scraping sets a namespace.
        .all_value(".*")
    )


def _panel(panel: Panel, view: View) -> timeseries.Panel | stat.Panel | table.Panel:
    if panel.kind == "table":
        return _described(_table(panel, view), panel, view)
    if panel.kind == "number":
        return _described(stat.Panel().targets(_targets(panel)), panel, view)
    return _described(_lines(panel), panel, view)


def _described(built: Built, panel: Panel, view: View) -> Built:
    built = built.title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    return built.no_value(panel.empty).links([_to_view(panel.leads, view)])


def _targets(panel: Panel) -> list[Builder[Dataquery]]:
    built: list[Builder[Dataquery]] = []
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        if panel.kind == "lines":
            built.append(target.range())
        else:
            target = target.instant()
            built.append(target.format(PromQueryFormat.TABLE) if panel.kind == "table" else target)
    return built


def _lines(panel: Panel) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .targets(_targets(panel))
        .fill_opacity(10)
        .legend(common.VizLegendOptions().show_legend(True).calcs(["lastNotNull"]))
        .min(0)
    )


def _table(panel: Panel, view: View) -> table.Panel:
    names = {f"Value #{chr(ord('A') + number)}": query.legend for number, query in enumerate(panel.queries)}
    if len(names) == 1:
        names = {"Value": panel.queries[0].legend}
    times = {"Time": True, **{f"Time {number + 1}": True for number in range(len(panel.queries))}}
    built = (
        table.Panel()
        .targets(_targets(panel))
        .with_transformation(
            DataTransformerConfig(id_val="joinByField", options={"byField": panel.by, "mode": "outer"})
        )
        .with_transformation(
            DataTransformerConfig(
                id_val="organize", options={"excludeByName": times, "renameByName": names, "indexByName": {}}
            )
        )
        .sort_by([common.TableSortByFieldState().display_name(panel.queries[0].legend).desc(True)])
    )
    for query in panel.queries:
        built = built.override_by_name(query.legend, [DynamicConfigValue(id_val="unit", value=query.unit)])
    chosen = f"${{__data.fields.{panel.by}}}"
    given = {panel.by: chosen} if panel.by in NEXT[panel.leads][1] else {}
    link = {"title": f"{NEXT[panel.leads][0]}: {chosen}", "url": url(panel.leads, view, **given)}
    return built.override_by_name(panel.by, [DynamicConfigValue(id_val="links", value=[link])])
