"""A server with a certificate of its own authority, one that asks for the client's, and proxies on the way."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from helpers.forward_proxy import run_proxy
from helpers.running_server import TOKEN, run_asgi
from helpers.scripted_engine import ScriptedEngine

from diffusion_core.config import ServerConfig
from diffusion_core.errors import ConfigError, Unreachable, Untrusted
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.server import create_app
from diffusion_core.requests import CompletionRequest

REQUEST = CompletionRequest(prefix="abc", max_tokens=1)


@dataclass(frozen=True)
class Secured:
    """A TLS server for 127.0.0.1 and engine.test, its authority, and a client's certificate of the same."""

    address: str
    ca: Path
    other_ca: Path
    client: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


def serve_tls(files: Path, *, ask_client: bool) -> Iterator[Secured]:
    authority, other = trustme.CA(), trustme.CA()
    names = Secured("", files / "ca.pem", files / "other.pem", files / "client.pem")
    authority.cert_pem.write_to_path(names.ca)
    other.cert_pem.write_to_path(names.other_ca)
    authority.issue_cert("dev@example.org").private_key_and_cert_chain_pem.write_to_path(names.client)
    server = authority.issue_cert("127.0.0.1", "engine.test")
    server.private_key_and_cert_chain_pem.write_to_path(files / "server.pem")
    settings: dict[str, Any] = {"ssl_certfile": str(files / "server.pem")}
    if ask_client:
        settings |= {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": str(names.ca)}
    with run_asgi(create_app(ScriptedEngine(), ServerConfig(), TOKEN), **settings) as address:
        yield Secured(address, names.ca, names.other_ca, names.client)


@pytest.fixture
def secured(files: Path) -> Iterator[Secured]:
    yield from serve_tls(files, ask_client=False)


@pytest.fixture
def asking(files: Path) -> Iterator[Secured]:
    yield from serve_tls(files, ask_client=True)


async def ask(url: str, **settings: Any) -> str:
    client = HttpEngineClient(url, TOKEN, **settings)
    try:
        return (await client.complete(REQUEST)).text
    finally:
        await client.aclose()


async def test_an_own_authority_as_a_file_or_in_a_folder(secured: Secured, tmp_path: Path) -> None:
    url = f"https://{secured.address}"
    assert await ask(url, ca_file=str(secured.ca)) == "cba"
    (tmp_path / "ours.crt").write_bytes(secured.ca.read_bytes())
    (tmp_path / "notes.txt").write_text("no certificate")
    assert await ask(url, ca_file=str(tmp_path)) == "cba"
    with pytest.raises(ConfigError, match=r"client\.ca_file: .*empty holds no certificate"):
        (tmp_path / "empty").mkdir()
        await ask(url, ca_file=str(tmp_path / "empty"))


async def test_the_systems_store_counts_where_no_file_is_named(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"https://{secured.address}"
    with pytest.raises(Untrusted, match=r"is not trusted: set client\.ca_file to the authority that signed it"):
        await ask(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.ca))
    assert await ask(url) == "cba"


async def test_the_wrong_authority_and_the_wrong_name_are_told_apart(secured: Secured) -> None:
    url = f"https://{secured.address}"
    with pytest.raises(Untrusted, match=r"was not signed by client\.ca_file .*other\.pem"):
        await ask(url, ca_file=str(secured.other_ca))
    with pytest.raises(Untrusted, match=r"is for another name .*use that name in client\.url"):
        await ask(url.replace("127.0.0.1", "localhost"), ca_file=str(secured.ca))


async def test_a_server_that_asks_who_the_client_is(asking: Secured, tmp_path: Path) -> None:
    url, ca = f"https://{asking.address}", str(asking.ca)
    with pytest.raises(Unreachable, match=r"asks for a client's certificate[:,] set client\.cert_file"):
        await ask(url, ca_file=ca)
    assert await ask(url, ca_file=ca, cert_file=str(asking.client)) == "cba"
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    both = asking.client.read_text()
    cut = both.index("-----BEGIN CERTIFICATE")
    key.write_text(both[:cut])
    certificate.write_text(both[cut:])
    assert await ask(url, ca_file=ca, cert_file=str(certificate), key_file=str(key)) == "cba"
    with pytest.raises(ConfigError, match=r"client\.cert_file: cannot use .*certificate\.pem"):
        await ask(url, ca_file=ca, cert_file=str(certificate))


async def test_a_key_with_a_password_is_named_instead_of_asked_for(asking: Secured, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form

    both = asking.client.read_bytes()
    key = form.load_pem_private_key(both, None)
    locked = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret"))
    (tmp_path / "locked.pem").write_bytes(locked)
    with pytest.raises(ConfigError, match=r"client\.key_file: the key in .*locked\.pem has a password"):
        await ask(
            f"https://{asking.address}",
            ca_file=str(asking.ca),
            cert_file=str(asking.client),
            key_file=str(tmp_path / "locked.pem"),
        )


async def test_a_proxy_carries_tls_and_plain_requests(secured: Secured) -> None:
    port = secured.address.rpartition(":")[2]
    async with run_proxy(secured.address) as proxy:
        assert await ask(f"https://engine.test:{port}", ca_file=str(secured.ca), proxy=proxy.url) == "cba"
        assert proxy.seen == [f"CONNECT engine.test:{port} HTTP/1.1"]
    with run_asgi(create_app(ScriptedEngine(), ServerConfig(), TOKEN)) as plain:
        async with run_proxy(plain) as proxy:
            assert await ask("http://engine.test:8712", proxy=proxy.url) == "cba"
            assert proxy.seen == ["POST http://engine.test:8712/v1/complete HTTP/1.1"]


async def test_a_proxys_refusal_and_its_absence_are_told_without_its_password(secured: Secured) -> None:
    async with run_proxy(secured.address, login="ada:s3cret") as proxy:
        with pytest.raises(Unreachable, match=r"the proxy on the way to .* refuses: 407 .*; see client\.proxy"):
            await ask("https://engine.test", ca_file=str(secured.ca), proxy=proxy.url)
        known = proxy.url.replace("http://", "http://ada:s3cret@")
        assert await ask("https://engine.test", ca_file=str(secured.ca), proxy=known) == "cba"
    with pytest.raises(Unreachable, match=r"nothing answers at https://engine\.test through the proxy") as caught:
        await ask("https://engine.test", proxy=known)
    assert "s3cret" not in str(caught.value)


async def test_the_environments_proxy_is_used_unless_a_setting_or_no_proxy_says_otherwise(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with run_proxy(secured.address) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        assert await ask("https://engine.test", ca_file=str(secured.ca)) == "cba"
        assert len(proxy.seen) == 1
        with pytest.raises(Unreachable, match=r"nothing answers at https://engine\.test "):
            await ask("https://engine.test", ca_file=str(secured.ca), proxy="none")
        monkeypatch.setenv("no_proxy", "engine.test")
        with pytest.raises(Unreachable, match=r"nothing answers at https://engine\.test "):
            await ask("https://engine.test", ca_file=str(secured.ca))
        assert await ask(f"https://{secured.address}", ca_file=str(secured.ca), proxy=proxy.url) == "cba"
        assert len(proxy.seen) == 1, "an engine on this machine is never asked through a proxy"
