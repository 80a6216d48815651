"""Which series there are, and which of them an expression asks for, with which labels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram

from assistant_monitoring import rules
from assistant_observability import metrics

# Of others: the process, the cluster, Prometheus itself.
FOREIGN = {
    "process_cpu_seconds_total": frozenset(),
    "process_resident_memory_bytes": frozenset(),
    "kube_pod_container_status_waiting_reason": frozenset({"namespace", "pod", "container", "reason"}),
    "kubelet_volume_stats_available_bytes": frozenset({"namespace", "persistentvolumeclaim"}),
    "kubelet_volume_stats_capacity_bytes": frozenset({"namespace", "persistentvolumeclaim"}),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
}
# Of scraping: the monitors of the chart set them.
TARGET = {"job", "instance", "namespace", "pod", "tenant"}
WORDS = {
    "by", "on", "and", "or", "unless", "offset", "ignoring", "group_left",
    "sum", "max", "min", "count", "topk", "rate", "increase", "deriv", "abs", "absent", "vector", "time",
    "max_over_time", "sum_over_time", "clamp_min", "histogram_quantile", "label_replace",
}  # fmt: skip


def known() -> dict[str, frozenset[str]]:
    """Return every series that may be asked for, with its labels."""
    found = dict(FOREIGN)
    for metric in vars(metrics).values():
        if not isinstance(metric, Counter | Gauge | Histogram):
            continue
        name, labels = metric._name, frozenset(metric._labelnames)
        if isinstance(metric, Counter):
            found[f"{name}_total"] = labels
        elif isinstance(metric, Histogram):
            found |= {f"{name}_count": labels, f"{name}_sum": labels, f"{name}_bucket": labels | {"le"}}
        else:
            found[name] = labels
    for group in rules.groups():
        for rule in group["rules"]:
            if "record" in rule:
                by = re.search(r"sum by \(([\w, ]+)\)", rule["expr"])
                recorded = frozenset(by[1].split(", ")) if by else frozenset({"tenant"})
                found[rule["record"]] = recorded
    return found


def selectors(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each series of an expression with the labels that it is matched by."""
    bare = re.sub(r'"[^"]*"', '""', expr)
    bare = re.sub(r"\b(?:by|on) \([^)]*\)|\[[^\]]*\]|\boffset \w+", "", bare)
    for found in re.finditer(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(\{[^}]*\})?", bare):
        name, matchers = found[1], found[2] or ""
        if name not in WORDS:
            yield name, set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers))


def grouped(expr: str) -> set[str]:
    """Return the labels that an expression groups by or joins on."""
    return {label for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expr) for label in re.findall(r"\w+", labels)}
