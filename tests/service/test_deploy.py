"""Dashboard and alerts ask for metrics that the service has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def expressions() -> Iterator[Any]:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/allmrec.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=panel["title"])
    alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    for group in alerts["groups"]:
        for rule in group["rules"]:
            yield pytest.param(rule["expr"], id=rule["alert"])


def known() -> dict[str, set[str]]:
    """Every sample of a service that has answered one request, with its labels."""
    metrics = Metrics()
    metrics.http_requests.labels("/", 200).inc()
    metrics.http_duration.labels("/", 200).observe(1)
    metrics.feedback_events.labels("view").inc()
    metrics.serving("1", "control", 1)
    families = text_string_to_metric_families(metrics.render().decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_names_existing_metrics_and_labels(expression: str) -> None:
    samples = known()
    outside = {"instance", "job"}
    selectors = re.findall(r"\b((?:allmrec|process)_\w+)(?:\{([^}]*)\})?", expression)
    assert selectors or 'up{job="allmrec"}' in expression
    labels: set[str] = set()
    for name, matchers in selectors:
        assert name in samples
        labels |= samples[name]
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= samples[name] | outside
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= labels | outside
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def test_panels_do_not_overlap() -> None:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/allmrec.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not taken & cells
        assert place["x"] + place["w"] <= 24
        taken |= cells
