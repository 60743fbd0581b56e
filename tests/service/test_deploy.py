"""Dashboard and alerts ask for metrics that the service has, alerts fire when they should, containers are closed."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from models.engines.process import EngineProcessConfig
from models.engines.vllm import VLLMEngineConfig
from service.metrics import Metrics, engine_exposition
from service.settings import Settings
from service.stores.local import _STOP_SECONDS

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
CASES = DEPLOY / "prometheus" / "alerts_test.yml"
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; it comes with Prometheus")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


ALERTS = [rule["alert"] for rule in rules()]


def expressions() -> Iterator[Any]:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/allmrec.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=panel["title"])
    for rule in rules():
        yield pytest.param(rule["expr"], id=rule["alert"])


def known() -> dict[str, set[str]]:
    """Every sample of a service that has answered one request, with its labels."""
    metrics = Metrics()
    metrics.http_requests.labels("/", 200).inc()
    metrics.http_duration.labels("/", 200).observe(1)
    metrics.feedback_events.labels("view").inc()
    metrics.store_up.labels("users").set(1)
    metrics.serving("1", "control", 1)
    families = text_string_to_metric_families((asyncio.run(metrics.render()) + engine_exposition()).decode())
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


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True, check=False)


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then() -> None:
    checked = promtool("check", "rules", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", CASES)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_cases_and_a_runbook(alert: str) -> None:
    """One at least in which it fires, one in which it is silent, and a paragraph where its annotation points to."""
    names = [test["name"] for test in yaml.safe_load(CASES.read_text())["tests"]]
    assert any(name.startswith(f"{alert}: fires") for name in names)
    assert any(name.startswith(f"{alert}: silent") for name in names)
    annotations = next(rule["annotations"] for rule in rules() if rule["alert"] == alert)
    document, _, anchor = annotations["runbook"].partition("#")
    assert anchor == alert.lower()
    assert f"\n### {alert}\n" in (ROOT / document).read_text()


def test_every_metric_is_explained() -> None:
    """The client library's own, of the LLM's process, in one row."""
    document = (ROOT / "docs/operations.md").read_text()
    for name in {re.sub("_(bucket|sum|count)$", "", name) for name in known() if name.startswith("allmrec_")}:
        told = re.sub("^allmrec_llm_process_.*", "allmrec_llm_process_*", name)
        assert f"| `{told}` |" in document


def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.mark.parametrize("service", services().values(), ids=services())
def test_a_container_may_do_little(service: dict[str, Any]) -> None:
    """Nothing is written but to volumes and memory, nothing becomes root, nothing takes the whole machine."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]  # noqa: S108
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    for volume in service["volumes"]:
        assert not volume.startswith(".") or volume.endswith(":ro")


@pytest.mark.parametrize("name", sorted(set(services()) - {"allmrec"}))
def test_images_are_pinned(name: str) -> None:
    """By all of their version, and replaceable by a digest."""
    assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[\w/]+:v?\d+\.\d+\.\d+[\w.-]*\}", services()[name]["image"])


def test_redis_wants_a_password() -> None:
    """There is no default, it is nobody's argument, and the service knows it."""
    redis = services()["redis"]
    assert redis["environment"]["REDIS_PASSWORD"].startswith("${REDIS_PASSWORD:?")
    assert "requirepass $$REDIS_PASSWORD" in redis["command"][-1]
    assert "--requirepass" not in redis["command"][-1]
    assert "REDISCLI_AUTH" in redis["healthcheck"]["test"][-1]
    assert services()["allmrec"]["environment"]["REDIS_URL"].startswith("redis://:${REDIS_PASSWORD:?")


def test_settings_reach_the_container() -> None:
    """All that stands in `.env`, but where the container has no choice; its bundle is the one that is meant outside."""
    service = services()["allmrec"]
    assert service["env_file"] == [{"path": ".env", "required": False}]
    given = service["environment"]
    assert (given["ALLMREC_HOST"], given["ALLMREC_PORT"], given["ALLMREC_REDIS_DIR"]) == (
        "0.0.0.0",  # noqa: S104
        service["ports"][0].rpartition(":")[2],
        "/data/redis",
    )
    example = re.search(r"^# ALLMREC_BUNDLE=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    workdir = re.search(r"^WORKDIR (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert example
    assert workdir
    assert given["ALLMREC_BUNDLE"] == f"${{ALLMREC_BUNDLE:-{example[1]}}}"
    mounts = {inside: outside for outside, inside, *_ in (volume.split(":") for volume in service["volumes"])}
    inside = Path(workdir[1], example[1])
    assert mounts[str(inside.parent)] == f"./{Path(example[1]).parent}"


def test_a_container_is_given_the_time_to_end() -> None:
    """That of the settings' defaults, of the LLM and of a local server, and another where `.env` gives them more."""
    grace = re.fullmatch(r"\$\{STOP_GRACE:-(\d+)s\}", services()["allmrec"]["stop_grace_period"])
    assert grace
    assert f"\n# STOP_GRACE={grace[1]}s\n" in (ROOT / ".env.example").read_text()
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    ends = EngineProcessConfig().end_seconds + _STOP_SECONDS
    assert EngineProcessConfig().end_seconds > VLLMEngineConfig().end_seconds  # it has vLLM to end
    assert int(grace[1]) >= settings.lame_duck_seconds + settings.shutdown_seconds + ends


def test_bundles_are_where_the_image_and_older_settings_look_for_them() -> None:
    """`ALLMREC_BUNDLE=/bundles/<x>` was what `.env` had to say before `bundles/<x>` held inside."""
    default = re.search(r"^ENV .*\bALLMREC_BUNDLE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert default
    assert f"./bundles:{default[1]}:ro" in services()["allmrec"]["volumes"]


def test_the_image_runs_as_nobody_and_writes_to_data_alone() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    stages = [position for position, line in enumerate(lines) if line.startswith("FROM ")]
    for start, end in zip(stages[1:], [*stages[2:], len(lines)], strict=True):
        users = [line for line in lines[start:end] if line.startswith("USER ")]
        assert users == ["USER 10001:10001"]
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+$", "\n".join(lines), re.MULTILINE)
    places = re.findall(r"\b(HOME|\w+_HOME|\w+_CACHE_ROOT|\w+_CACHE_DIR|ALLMREC_REDIS_DIR)=(/\S+)", "\n".join(lines))
    assert len(places) >= 6
    assert {place.split("/")[1] for _, place in places} == {"data"}
