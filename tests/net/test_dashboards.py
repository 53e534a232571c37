"""The dashboard and the alert rules ask for what a live server really exports."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from helpers.promql import parse_promql
from helpers.running_server import TOKEN, RunningServer, run_engine_server
from helpers.tiny_models import save_tiny_checkpoint
from prometheus_client.parser import text_string_to_metric_families

import diffusion_core
from diffusion_core.config import MIB, EngineConfig
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import CompletionRequest, EditRequest, WarmRequest

DEPLOY = Path(diffusion_core.__file__).parent / "deploy"
DASHBOARD = DEPLOY / "grafana/dashboards/unmask.json"
RULES = DEPLOY / "prometheus/unmask-alerts.yml"
# What Prometheus itself adds to every sample, and says of every target.
ADDED_LABELS = {"job", "instance"}
ADDED_METRICS = {"up": ADDED_LABELS}


def load_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def load_panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    queries = [target["expr"] for panel in load_panels() for target in panel["targets"]]
    return sorted({*queries, *(rule["expr"] for rule in load_rules())})


async def use_and_read(server: RunningServer) -> str:
    """A bit of everything, and the metrics after it."""
    client = server.connect()
    request = CompletionRequest(prefix="def f(x):\n", max_tokens=4)
    await client.complete(request)
    await client.warm(WarmRequest(completion=request))
    async for _ in client.edit(EditRequest(selection="a = 1\n", instruction="go", max_tokens=4)):
        pass
    with pytest.raises(InvalidRequest):
        await client.complete(replace(request, model="another"))
    await client.aclose()
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False) as http:
        assert (await http.post(f"{server.url}/v1/admin/reload", timeout=60)).status_code == 200
        return (await http.get(f"{server.url}/metrics")).text


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Sample name -> labels, of a server with a real engine."""
    checkpoint = str(save_tiny_checkpoint(tmp_path_factory.mktemp("dashboards") / "model"))
    config = EngineConfig(
        model=checkpoint, edit_model=checkpoint, dtype="float32", device="cpu", num_threads=1, prefix_cache_bytes=MIB
    )
    engine = AsyncEngine(config)
    engine.start()
    with run_engine_server(engine) as server:
        text = asyncio.run(use_and_read(server))
    asyncio.run(engine.aclose())
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_query_asks_for_what_a_server_exports(exported: dict[str, set[str]]) -> None:
    known = {name: labels | ADDED_LABELS for name, labels in exported.items()} | ADDED_METRICS
    for expression in expressions():
        query = parse_promql(expression)
        assert query.metrics, expression
        for name, labels in query.metrics.items():
            assert name in known, f"{name} is not exported: {expression}"
            assert labels <= known[name], f"{name} has no label {labels - known[name]}: {expression}"
        every_label = set().union(*(known[name] for name in query.metrics))
        assert query.grouped <= every_label, expression


def test_what_a_server_exports_is_shown_or_guarded(exported: dict[str, set[str]]) -> None:
    asked = {name for expression in expressions() for name in parse_promql(expression).metrics}
    families = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in asked}
    own = {name for name in exported if name.startswith("unmask_")}
    unseen = {name for name in own if not any(name.startswith(family) for family in families)}
    assert not unseen - {"unmask_engine_memory_bytes", "unmask_model_ready", "unmask_requests_in_progress"}


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= dashboard.keys()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    cells = [
        (x, y) for place in places for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]  # fmt: skip
    assert len(cells) == len(set(cells)), "two panels overlap"
    for panel in load_panels():
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))


def test_rules_name_what_is_wrong() -> None:
    names = [rule["alert"] for rule in load_rules()]
    assert len(names) == len(set(names)) >= 5
    for rule in load_rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]


PROVISIONING = sorted(DEPLOY.glob("grafana/provisioning/*/*.yml"))


@pytest.mark.parametrize("path", [*PROVISIONING, DEPLOY / "prometheus/prometheus.yml"])
def test_files_for_the_monitoring_system_are_yaml_and_fit_together(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    if path.name == "prometheus.yml":
        assert document["rule_files"] == [RULES.name]
        assert document["scrape_configs"][0]["job_name"] == "unmask"
        assert document["scrape_configs"][0].get("metrics_path", "/metrics") == "/metrics"
    else:
        assert document["apiVersion"] == 1


@pytest.mark.parametrize(
    ("expression", "metrics", "grouped"),
    [
        ('sum by (le) (rate(a_bucket{job="$job", x=~"b(c"}[5m]))', {"a_bucket": {"job", "x"}}, {"le"}),
        (
            "topk(10, sum(rate(a_total[$__rate_interval]))) / b > 0.2 and on (instance) c > 21600",
            {"a_total": set(), "b": set(), "c": set()},
            {"instance"},
        ),
    ],
)
def test_the_parser_of_queries(expression: str, metrics: dict[str, set[str]], grouped: set[str]) -> None:
    query = parse_promql(expression)
    assert {name: set(labels) for name, labels in query.metrics.items()} == metrics
    assert query.grouped == grouped
