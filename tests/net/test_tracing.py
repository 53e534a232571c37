"""Traces of a real server, as a collector on loopback receives them."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from helpers.running_server import TOKEN, run_asgi, wait_until
from helpers.scripted_engine import ScriptedEngine
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from diffusion_core.config import ServerConfig
from diffusion_core.errors import ConfigError
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.observing.observatory import Observatory
from diffusion_core.net.protocol import CONTENT_TYPE, encode
from diffusion_core.net.server import create_app
from diffusion_core.requests import CompletionRequest, Result, Timings

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CANARY = "kanarienvogel"


class TimedEngine(ScriptedEngine):
    """Says where its time went."""

    async def complete(self, request: CompletionRequest) -> Result:
        result = await super().complete(request)
        timings = Timings(queue_ms=1.0, prefill_ms=2.0, denoise_ms=4.0, total_ms=7.0)
        return replace(result, timings=timings, num_tokens=5)


@dataclass
class Collector:
    """What an OpenTelemetry collector would have received."""

    url: str
    bodies: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span for request in requests for resource in request.resource_spans for scope in resource.scope_spans
            for span in scope.spans
        ]  # fmt: skip


@contextmanager
def run_collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.bodies.append(gzip.decompress(body) if self.headers.get("content-encoding") else body)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield collector
        server.shutdown()
        thread.join()


def test_a_trace_goes_on_through_the_server_down_to_the_engines_phases() -> None:
    with run_collector() as collector:
        config = ServerConfig(otlp_endpoint=collector.url)
        engine = TimedEngine(forward_s=0.005)
        observatory = Observatory(engine, config)
        with run_asgi(create_app(engine, config, TOKEN, observatory=observatory)) as address:
            headers = {
                "authorization": f"Bearer {TOKEN}", "content-type": CONTENT_TYPE,
                "traceparent": f"00-{TRACE}-{PARENT}-01",
            }  # fmt: skip
            with httpx.Client(base_url=f"http://{address}", headers=headers, trust_env=False) as http:
                for model in ("", "bug"):
                    request = CompletionRequest(prefix=CANARY, max_tokens=2, id=f"the-id{model}", model=model)
                    http.post("/v1/complete", content=encode(request))
                http.get("/v1/health")
        observatory.close()
        wait_until(lambda: len(collector.spans) == 5)
    whole, failed = sorted(
        (span for span in collector.spans if span.parent_span_id.hex() == PARENT), key=lambda s: s.start_time_unix_nano
    )
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    attributes = {each.key: each.value for each in whole.attributes}
    assert attributes["http.route"].string_value == "/v1/complete"
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["unmask.request_id"].string_value == "the-id"
    assert attributes["user.name"].string_value == "owner"
    assert attributes["unmask.num_tokens"].int_value == 5
    assert failed.status.code == 2
    phases = [span for span in collector.spans if span.parent_span_id == whole.span_id]
    phases.sort(key=lambda span: span.start_time_unix_nano)
    assert [(span.name, round((span.end_time_unix_nano - span.start_time_unix_nano) / 1e6)) for span in phases] == [
        ("queue", 1), ("prefill", 2), ("denoise", 4),
    ]  # fmt: skip
    assert whole.start_time_unix_nano <= phases[0].start_time_unix_nano
    assert not any(CANARY.encode() in body or TOKEN.encode() in body for body in collector.bodies)


async def test_a_command_goes_on_with_the_trace_it_was_started_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{PARENT}-01")
    with run_collector() as collector:
        config = ServerConfig(otlp_endpoint=collector.url)
        engine = TimedEngine(forward_s=0.001)
        observatory = Observatory(engine, config)
        with run_asgi(create_app(engine, config, TOKEN, observatory=observatory)) as address:
            client = HttpEngineClient(f"http://{address}", TOKEN)
            await client.complete(CompletionRequest(prefix="a", max_tokens=1))
            await client.aclose()
        observatory.close()
        wait_until(lambda: collector.spans)
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}


def test_without_a_receiver_requests_are_answered_all_the_same() -> None:
    config = ServerConfig(otlp_endpoint="http://127.0.0.1:9")
    engine = TimedEngine(forward_s=0.001)
    observatory = Observatory(engine, config)
    with run_asgi(create_app(engine, config, TOKEN, observatory=observatory)) as address:
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": CONTENT_TYPE}
        content = encode(CompletionRequest(prefix="a", max_tokens=1))
        answer = httpx.post(f"http://{address}/v1/complete", headers=headers, content=content, trust_env=False)
        assert answer.status_code == 200
    observatory.close()


def test_the_package_is_needed_only_by_those_who_want_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    Observatory(ScriptedEngine(), ServerConfig())
    with pytest.raises(ConfigError, match=r"pip install 'unmask\[otel\]'"):
        Observatory(ScriptedEngine(), ServerConfig(otlp_endpoint="http://127.0.0.1:4318"))


def test_a_server_without_traces_does_not_load_their_package() -> None:
    program = "import sys, diffusion_core.net.serve; assert not any(n.startswith('opentelemetry') for n in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
