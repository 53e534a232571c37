"""What an administrator sees of a real server: metrics, live load, log lines, ids."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator

import httpx
import pytest
from helpers.running_server import TOKEN, RunningServer, run_engine_server, wait_until
from helpers.scripted_engine import ScriptedEngine
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.routing import Route

from diffusion_core.config import ServerConfig
from diffusion_core.errors import DeadlineExceeded, Overloaded, Unauthorized
from diffusion_core.net.observing.request_ids import valid_traceparent
from diffusion_core.net.protocol import CONTENT_TYPE, encode
from diffusion_core.net.server import create_app
from diffusion_core.requests import CompletionRequest, EditRequest, WarmRequest

METRICS_TOKEN = "a-token-for-metrics"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with run_engine_server(ScriptedEngine(forward_s=0.002), metrics_token=METRICS_TOKEN) as running:
        yield running


def get(server: RunningServer, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{server.url}{path}", headers=BEARER | headers, trust_env=False)


def read_metrics(server: RunningServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels; empty labels are no labels."""
    return {
        (sample.name, frozenset((name, value) for name, value in sample.labels.items() if value)): sample.value
        for family in parse_text(get(server, "/metrics").text)
        for sample in family.samples
    }


def value(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


async def use_everything(server: RunningServer) -> None:
    """One request of each kind and of each end."""
    client = server.connect()
    request = CompletionRequest(prefix="abc", max_tokens=2)
    await client.complete(request)
    await client.warm(WarmRequest(completion=request))
    async for _ in client.edit(EditRequest(selection="abcd", instruction="go", max_tokens=2)):
        pass
    with pytest.raises(Overloaded):
        await client.complete(CompletionRequest(prefix="abc", model="busy"))
    with pytest.raises(DeadlineExceeded):
        await client.complete(CompletionRequest(prefix="abc", model="late", max_tokens=1))
    task = asyncio.create_task(client.complete(CompletionRequest(prefix="abc", max_tokens=8000)))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await client.aclose()
    stranger = server.connect("wrong")
    with pytest.raises(Unauthorized):
        await stranger.complete(request)
    await stranger.aclose()


async def test_metrics_count_every_request_and_its_end(server: RunningServer) -> None:
    await use_everything(server)
    wait_until(lambda: value(read_metrics(server), "unmask_requests_in_progress") == 0)
    samples = read_metrics(server)
    for task, outcome, count in (
        ("complete", "ok", 1), ("warm", "ok", 1), ("edit", "ok", 1), ("complete", "rejected", 1),
        ("complete", "deadline", 1), ("complete", "cancelled", 1),
    ):  # fmt: skip
        labels = {"task": task, "outcome": outcome, "user": "owner"}
        assert value(samples, "unmask_requests_total", **labels) == count, labels
    reasons = {"overloaded": "rejected", "unauthorized": "rejected", "deadline_exceeded": "deadline"}
    for reason, outcome in reasons.items():
        assert value(samples, "unmask_failed_requests_total", reason=reason, outcome=outcome) == 1
    http = {"method": "POST", "route": "/v1/complete"}
    assert value(samples, "unmask_http_requests_total", **http, status="200", user="owner") == 1
    assert value(samples, "unmask_http_requests_total", **http, status="0", user="owner") == 1
    assert value(samples, "unmask_http_requests_total", method="POST", status="401") == 1
    assert value(samples, "unmask_answer_forwards_total", task="complete") == 2
    assert value(samples, "unmask_answer_seconds_count", task="complete") == 1
    assert value(samples, "unmask_engine_ready") == 1


def test_metrics_are_for_administrators_and_the_metrics_token_which_opens_nothing_else(server: RunningServer) -> None:
    metrics_token = {"authorization": f"Bearer {METRICS_TOKEN}"}
    assert get(server, "/metrics").status_code == 200
    assert get(server, "/metrics", **metrics_token).status_code == 200
    assert get(server, "/metrics", authorization="Bearer x").status_code == 401
    refusal = get(server, "/v1/load", **metrics_token)
    assert (refusal.status_code, refusal.json()["code"]) == (403, "forbidden")
    content = encode(CompletionRequest(prefix="abc", max_tokens=1))
    headers = {**metrics_token, "content-type": CONTENT_TYPE}
    answer = httpx.post(f"{server.url}/v1/complete", headers=headers, content=content, trust_env=False)
    assert answer.status_code == 403
    routes = create_app(ScriptedEngine(), ServerConfig(), TOKEN).routes
    asked = [route.path for route in routes if isinstance(route, Route) and "GET" in (route.methods or ())]
    closed = [path for path in asked if get(server, path, authorization="Bearer x").status_code == 401]
    assert {"/v1/health", "/v1/session", "/v1/models", "/health", "/openapi.json", "/metrics"} <= set(closed)
    assert [path for path in closed if get(server, path, **metrics_token).status_code != 403] == ["/metrics"]
    assert get(server, "/livez", **metrics_token).status_code == 200


async def test_metrics_have_names_as_prometheus_wants_them_in_both_formats(server: RunningServer) -> None:
    await use_everything(server)
    openmetrics = get(server, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    text = get(server, "/metrics")
    assert text.headers["content-type"].startswith("text/plain")
    names = {family.name for family in parse_openmetrics(openmetrics.text)}
    assert "unmask_http_requests" in names
    families = {family.name: family for family in parse_text(text.text)}
    for name, family in families.items():
        assert re.fullmatch(r"(unmask|process)_[a-z][a-z0-9_]*", name)
        assert family.documentation, name
        assert not name.endswith(("_ms", "_milliseconds", "_mib", "_percent", "_count", "_sum", "_bucket")), name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples), name
        elif family.type == "gauge" and not name.startswith("process_"):
            assert not name.endswith("_total"), name
        elif family.type == "histogram":
            check_histogram(family.samples)
        labels = {label for sample in family.samples for label in sample.labels}
        assert not labels & {"prefix", "path", "token", "id", "request"}, name


def check_histogram(samples: list) -> None:
    """Buckets rise to +Inf, which is the count."""
    by_labels: dict[frozenset, dict[str, float]] = {}
    for sample in samples:
        rest = frozenset((key, text) for key, text in sample.labels.items() if key != "le")
        by_labels.setdefault(rest, {})[sample.labels.get("le", sample.name.rpartition("_")[2])] = sample.value
    for values in by_labels.values():
        buckets = [values[bound] for bound in values if bound not in {"sum", "count"}]
        assert buckets == sorted(buckets)
        assert values["+Inf"] == values["count"]


async def test_names_of_users_can_be_kept_out_of_metrics() -> None:
    with run_engine_server(ScriptedEngine(forward_s=0.001), metrics_users=0) as server:
        client = server.connect()
        await client.complete(CompletionRequest(prefix="abc", max_tokens=1))
        await client.aclose()
        assert value(read_metrics(server), "unmask_requests_total", task="complete", outcome="ok") == 1
        assert "owner" not in get(server, "/metrics").text


async def test_the_load_tells_what_was_and_who(server: RunningServer) -> None:
    await use_everything(server)
    wait_until(lambda: get(server, "/v1/load").json()["current"]["active"] == 0)
    load = get(server, "/v1/load").json()
    totals = load["totals"]
    assert totals["requests"] == 7
    assert (totals["ok"], totals["rejected"], totals["cancelled"], totals["deadlines"]) == (3, 2, 1, 1)
    assert load["reasons"] == {"overloaded": 1, "deadline_exceeded": 1, "unauthorized": 1}
    assert load["window"]["requests"] == 7
    assert [user["user"] for user in load["users"]] == ["owner"]
    assert load["users"][0]["requests"] == 6
    lists = [value for value in load["history"].values() if isinstance(value, list)]
    assert len({len(each) for each in lists}) == 1


async def test_the_load_tells_what_is_under_way(server: RunningServer) -> None:
    client = server.connect()
    task = asyncio.create_task(client.complete(CompletionRequest(prefix="abc", max_tokens=8000)))
    await asyncio.to_thread(wait_until, lambda: get(server, "/v1/load").json()["current"]["active"] == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await client.aclose()
    await asyncio.to_thread(wait_until, lambda: get(server, "/v1/load").json()["current"]["active"] == 0)


async def test_the_error_at_the_end_of_a_stream_is_counted(server: RunningServer) -> None:
    client = server.connect()
    with pytest.raises(Overloaded):
        async for _ in client.edit(EditRequest(selection="abcd", instruction="go", model="busy", max_tokens=3)):
            pass
    await client.aclose()
    samples = read_metrics(server)
    assert value(samples, "unmask_failed_requests_total", reason="overloaded", outcome="rejected") == 1
    http = {"method": "POST", "route": "/v1/edit", "status": "200", "user": "owner"}
    assert value(samples, "unmask_http_requests_total", **http) == 1


def post_completion(server: RunningServer, request: CompletionRequest, **headers: str) -> httpx.Response:
    headers = {**BEARER, "content-type": CONTENT_TYPE, **headers}
    return httpx.post(f"{server.url}/v1/complete", headers=headers, content=encode(request), trust_env=False)


def test_a_request_has_one_id_in_the_answer_and_in_the_log(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = post_completion(server, CompletionRequest(prefix="a", max_tokens=1, id="own-1"), **{"x-request-id": "p-1"})
    assert answer.headers["x-request-id"] == "own-1"
    assert get(server, "/livez", **{"x-request-id": "p-2"}).headers["x-request-id"] == "p-2"
    forged = get(server, "/livez", **{"x-request-id": "a b; def secret()"}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", forged)
    # The line is written after the answer.
    wait_until(lambda: any("p-2 GET /livez" in record.getMessage() for record in caplog.records))
    (line,) = [record for record in caplog.records if record.getMessage().startswith("own-1 POST")]
    assert line.fields["proxy_id"] == "p-1"
    assert (line.fields["user"], line.fields["status"], line.fields["num_forwards"]) == ("owner", 200, 1)
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("def secret()", False),
    ],
)
def test_a_traceparent_is_taken_over_only_if_it_is_one(text: str, is_valid: bool) -> None:
    assert bool(valid_traceparent(text)) == is_valid
