"""Encryption by the server itself, certificates that change, and proxies before it. Real sockets and handshakes."""

from __future__ import annotations

import datetime
import logging
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from helpers.running_server import wait_until
from helpers.serve_process import run_scripted

from diffusion_core.config import ServerConfig
from diffusion_core.errors import ConfigError
from diffusion_core.net import certificates
from diffusion_core.net.certificates import Certificate
from diffusion_core.requests import CompletionRequest

Issue = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def issue(authority: trustme.CA, tmp_path: Path) -> Issue:
    def make(name: str = "server", **settings: datetime.datetime) -> tuple[str, str]:
        made = authority.issue_cert("localhost", "127.0.0.1", **settings)
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        certificate.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        return str(certificate), str(key)

    return make


def junk(path: str) -> None:
    Path(path).write_text("no certificate")


def serial_of(port: int, authority: trustme.CA) -> str:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        return str(wrapped.getpeercert()["serialNumber"])  # type: ignore[index]


async def test_the_whole_way_is_encrypted_and_a_new_certificate_drops_nobody(
    tmp_path: Path, issue: Issue, authority: trustme.CA
) -> None:
    certificate, key = issue()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    with run_scripted(tmp_path, tls_certificate=certificate, tls_key=key) as served:
        assert served.url.startswith("https://")
        served.verify = ssl.create_default_context(cafile=str(ca_file))
        client = served.connect(ca_file=str(ca_file))
        assert (await client.complete(CompletionRequest(prefix="abc", max_tokens=1))).text == "cba"
        first = serial_of(served.port, authority)
        async with httpx.AsyncClient(verify=served.verify, headers=served.headers, trust_env=False) as kept:
            assert (await kept.get(f"{served.url}/v1/health")).status_code == 200
            issue()  # over the old files, as certbot does
            served.process.send_signal(signal.SIGHUP)
            wait_until(lambda: serial_of(served.port, authority) != first)
            second = serial_of(served.port, authority)
            # A broken one changes nothing.
            junk(certificate)
            served.process.send_signal(signal.SIGHUP)
            served.wait_for_log("the certificate was not replaced: server.tls_certificate")
            assert serial_of(served.port, authority) == second
            # By itself, without a signal.
            issue()
            wait_until(lambda: serial_of(served.port, authority) != second, timeout_s=15)
            assert (await kept.get(f"{served.url}/v1/health")).status_code == 200
        assert (await client.complete(CompletionRequest(prefix="abc", max_tokens=1))).text == "cba"
        await client.aclose()
        assert "nothing is encrypted" not in served.log
        old = ssl.create_default_context(cafile=str(ca_file))
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", served.port)) as plain,
            pytest.raises(ssl.SSLError, match=r"(?i)protocol_version|EOF"),
        ):
            old.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("name", ["localhost", None], ids=["by name", "without a name"])
def test_files_that_change_while_they_are_read_turn_nobody_away(
    issue: Issue, authority: trustme.CA, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Certificate(*issue())
    first = shake_hands(served, authority, name)
    shake = certificates._shake_hands

    def replace_half(client: ssl.SSLContext, server: ssl.SSLContext) -> float:
        """What a renewal does between two looks at the files: the certificate is new, its key is not yet."""
        expires_at = shake(client, server)
        key = Path(served.paths[1]).read_bytes()
        issue()
        Path(served.paths[1]).write_bytes(key)
        return expires_at

    issue()
    monkeypatch.setattr(certificates, "_shake_hands", replace_half)
    assert served.reload()
    second = shake_hands(served, authority, name)
    assert second != first
    monkeypatch.undo()
    assert not served.reload(), "the halves do not belong together"
    assert shake_hands(served, authority, name) == second
    issue()
    assert served.reload()
    assert shake_hands(served, authority, name) not in {first, second}


def shake_hands(served: Certificate, authority: trustme.CA, name: str | None) -> str:
    """The serial number that a new connection meets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    authority.configure_trust(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [client, served.context.wrap_bio(to_server, to_client, server_side=True)]
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    found = client.getpeercert()
    assert found is not None
    return str(found["serialNumber"])


def test_files_that_cannot_serve_are_refused_by_name(tmp_path: Path, issue: Issue) -> None:
    certificate, key = issue()
    other, other_key = issue("other")
    expired = issue("expired", not_after=datetime.datetime(2020, 1, 1))
    early = issue("early", not_before=datetime.datetime(2090, 1, 1), not_after=datetime.datetime(2091, 1, 1))
    junk = tmp_path / "junk"
    junk.write_text("junk")
    locked = tmp_path / "locked.key"
    private = load_pem_private_key(Path(key).read_bytes(), None)
    locked.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x"))
    )
    for given, message in (
        ((certificate, other_key), r"tls_key: .*other\.key is not the key of the first certificate"),
        ((other, key), r"tls_key: .*server\.key is not the key"),
        (expired, r"tls_certificate: .*expired\.pem has expired"),
        (early, r"tls_certificate: .* is not valid yet"),
        ((str(junk), key), r"tls_certificate: .*junk holds no certificate"),
        ((certificate, str(junk)), r"tls_key: .*junk holds no key"),
        ((key, key), r"tls_certificate: .*server\.key holds no certificate"),
        (("/no/such", key), r"tls_certificate: cannot read /no/such: No such file"),
        ((certificate, "/no/such"), r"tls_key: cannot read /no/such"),
        ((certificate, str(locked)), r"tls_key: .*locked\.key is encrypted"),
    ):
        with pytest.raises(ConfigError, match=rf"server\.{message}"):
            Certificate(*given)
    with pytest.raises(ConfigError, match="belong together"):
        ServerConfig(tls_certificate=certificate)


def test_a_certificate_that_ends_soon_is_told(issue: Issue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    in_three_days = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(days=3, hours=1)
    Certificate(*issue(not_after=in_three_days))
    assert "expires in 3 days" in caplog.text


def test_an_open_address_without_encryption_is_warned_of(tmp_path: Path) -> None:
    for settings, is_warned in (({}, True), ({"behind_proxy": True}, False), ({"host": "127.0.0.1"}, False)):
        with run_scripted(tmp_path, **{"host": "0.0.0.0"} | settings) as served:
            assert ("nothing is encrypted" in served.log) == is_warned


def test_a_proxy_is_believed_only_if_it_is_trusted(tmp_path: Path) -> None:
    own_page = {"origin": "https://127.0.0.1:1", "host": "127.0.0.1:1", "x-forwarded-proto": "https"}
    for trusted, status in (((), 403), (("10.0.0.0/8",), 403), (("127.0.0.0/8",), 200)):
        with run_scripted(tmp_path, {"FORWARDED_ALLOW_IPS": "*"}, trusted_proxies=list(trusted)) as served:
            assert served.get("/v1/health", **own_page).status_code == status
    with pytest.raises(ConfigError, match=r"server\.trusted_proxies holds '\*'"):
        ServerConfig(trusted_proxies=("*",))
