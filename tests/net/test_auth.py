"""Tokens: where they come from and how a wrong one is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from diffusion_core.config import ClientConfig, ServerConfig
from diffusion_core.errors import ConfigError
from diffusion_core.net.auth import (
    CLIENT_TOKEN_VARIABLE,
    is_authorized,
    make_token,
    resolve_client_token,
    resolve_server_token,
)


@pytest.fixture(autouse=True)
def _no_token_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CLIENT_TOKEN_VARIABLE, raising=False)


def write_token(folder: Path, content: bytes, mode: int = 0o600) -> str:
    path = folder / "token"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_fresh_tokens_differ_and_fit_a_header() -> None:
    tokens = {make_token() for _ in range(50)}
    assert len(tokens) == 50
    assert all(is_authorized(f"Bearer {token}", token) for token in tokens)


@pytest.mark.parametrize(
    ("header", "is_right"),
    [
        ("Bearer abc", True),
        ("bearer abc", True),
        ("Bearer  abc ", True),
        ("Bearer abcd", False),
        ("Bearer ab", False),
        ("Bearer", False),
        ("", False),
        ("Basic abc", False),
        ("abc", False),
        ("Bearer \xe4bc", False),
    ],
)
def test_only_the_whole_token_is_accepted(header: str, is_right: bool) -> None:
    assert is_authorized(header, "abc") is is_right


def test_the_servers_token_comes_from_setting_file_or_chance(tmp_path: Path) -> None:
    assert resolve_server_token(ServerConfig(token="abc")) == "abc"
    assert resolve_server_token(ServerConfig(token_file=write_token(tmp_path, b"from-file\n"))) == "from-file"
    assert len(resolve_server_token(ServerConfig())) >= 32


def test_the_clients_token_comes_from_file_setting_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://engine.example"
    monkeypatch.setenv(CLIENT_TOKEN_VARIABLE, "from-environment")
    assert resolve_client_token(ClientConfig(url=url)) == "from-environment"
    assert resolve_client_token(ClientConfig(url=url, token="abc")) == "abc"
    file = write_token(tmp_path, b"from-file")
    assert resolve_client_token(ClientConfig(url=url, token_file=file)) == "from-file"
    monkeypatch.delenv(CLIENT_TOKEN_VARIABLE)
    with pytest.raises(ConfigError, match=r"client\.token_file or UNMASK_CLIENT_TOKEN"):
        resolve_client_token(ClientConfig(url=url))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no token"),
        (b" \n", "holds no token"),
        (b"two words", "only ASCII without spaces"),
        (b"line\nbreak", "only ASCII without spaces"),
        ("schl\u00fcssel".encode(), "only ASCII without spaces"),
        (b"\xff\xfe", "is not a text file"),
        (b"x" * 10_000, "longer than 4096"),
    ],
)
def test_a_file_without_a_usable_token_is_refused_without_quoting_it(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    file = write_token(tmp_path, content)
    with pytest.raises(ConfigError, match=problem) as caught:
        resolve_client_token(ClientConfig(url="https://engine.example", token_file=file))
    assert "client.token_file" in str(caught.value)
    assert "two words" not in str(caught.value)


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.token_file: cannot read .*nowhere: No such file"):
        resolve_server_token(ServerConfig(token_file=str(tmp_path / "nowhere")))


def test_a_token_file_that_everybody_can_read_gets_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    resolve_client_token(ClientConfig(url="https://e.example", token_file=write_token(tmp_path, b"abc", 0o600)))
    assert not caplog.records
    resolve_client_token(ClientConfig(url="https://e.example", token_file=write_token(tmp_path, b"s3cret", 0o644)))
    assert "chmod 600" in caplog.text
    assert "s3cret" not in caplog.text
