"""Which web pages may talk to a server: its own, under its own names, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from helpers.running_server import TOKEN, RunningServer, run_engine_server
from helpers.scripted_engine import ScriptedEngine

from diffusion_core.config import ServerConfig
from diffusion_core.errors import ConfigError, Overloaded, RateLimited, UnmaskError
from diffusion_core.net.exchange import retry_headers


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with run_engine_server(ScriptedEngine(), allowed_hosts=("code.example.org",)) as running:
        yield running


def ask(server: RunningServer, **headers: str) -> int:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given["authorization"] = f"Bearer {TOKEN}"
    return httpx.get(f"{server.url}/v1/health", headers=given, trust_env=False).status_code


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8712", "http://127.0.0.1:8712"),
        ("[::1]:8712", "http://[::1]:8712"),
        ("[::1]", "http://[::1]"),
        ("10.1.2.3:8712", "http://10.1.2.3:8712"),
        ("localhost:8712", "http://localhost:8712"),
        ("me.localhost:8712", "http://me.localhost:8712"),
        ("code.example.org:8712", "http://code.example.org:8712"),
        ("Code.Example.Org:80", "http://code.example.org"),
        ("code.example.org", "http://code.example.org:80"),
    ],
)
def test_pages_of_the_server_itself_may_ask(server: RunningServer, host: str, origin: str) -> None:
    assert ask(server, host=host, origin=origin, sec_fetch_site="same-origin") == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8712", "http://127.0.0.1:8713"),
        ("127.0.0.1:8712", "https://127.0.0.1:8712"),
        ("127.0.0.1:8712", "http://localhost:8712"),
        ("127.0.0.1:8712", "null"),
        ("127.0.0.1:8712", ""),
        ("code.example.org", "http://code.example.org.evil.test"),
        ("code.example.org", "http://code.example.org:443"),
        # A name that somebody pointed at this server: DNS rebinding.
        ("evil.test:8712", "http://evil.test:8712"),
        ("code.example.org.evil.test", "http://code.example.org.evil.test"),
        ("evil-localhost", "http://evil-localhost"),
    ],
)
def test_pages_of_others_may_not(server: RunningServer, host: str, origin: str) -> None:
    assert ask(server, host=host, origin=origin) == 403


def test_without_an_origin_the_browser_says_whose_page_asks(server: RunningServer) -> None:
    assert ask(server, sec_fetch_site="same-origin") == 200
    assert ask(server, sec_fetch_site="none", sec_fetch_mode="navigate") == 200
    assert ask(server, sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 200  # a link in a wiki
    assert ask(server, sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert ask(server, sec_fetch_site="same-site", sec_fetch_mode="cors") == 403
    assert ask(server, host="evil.test", sec_fetch_site="same-origin") == 403


def test_editors_may_use_any_name(server: RunningServer) -> None:
    assert ask(server, host="whatever.internal:1") == 200


@pytest.mark.parametrize("name", ["https://code.example.org", "code.example.org:443", "*", "", "a b"])
def test_a_host_that_is_none_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.allowed_hosts"):
        ServerConfig(allowed_hosts=(name,))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RateLimited("wait", retry_after_s=0.2), b"1"),
        (Overloaded("wait", retry_after_s=2.1), b"3"),
        (Overloaded("wait"), None),
        (UnmaskError("never", retry_after_s=3.0), None),
    ],
)
def test_when_to_come_again_is_a_header(error: UnmaskError, expected: bytes | None) -> None:
    assert dict(retry_headers(error.http_status, error)).get(b"retry-after") == expected
