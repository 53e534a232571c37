"""Settings of `unmask serve`: what can be set, what would be used, and what cannot be."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from helpers.tiny_models import save_tiny_checkpoint
from helpers.unmask_process import Finished, Unmask

from diffusion_core.cli.serve import merge_config, read_config_file
from diffusion_core.config import EngineConfig, RayConfig, ServerConfig
from diffusion_core.errors import ConfigError

SECRET = "s3cret-token-of-the-test"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


def check(folder: Path, *arguments: object, **environment: str) -> Finished:
    return Unmask(folder).run("serve", "--check-config", *arguments, **environment)


def test_the_example_names_every_setting_and_is_read_back(tmp_path: Path) -> None:
    finished = Unmask(tmp_path).run("serve", "--example-config")
    assert finished.code == 0
    text = finished.out.decode()
    # Every line that looks like a setting is one, once its mark is taken away.
    path = tmp_path / "unmask.toml"
    path.write_text(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    tables = read_config_file(path)
    for section, cls in (("engine", EngineConfig), ("server", ServerConfig), ("ray", RayConfig)):
        assert set(tables[section]) == {field.name for field in fields(cls)}
        assert merge_config(cls, section, tables) == cls()
    path.write_text(text)
    assert read_config_file(path) == {"engine": {}, "server": {}, "ray": {}}


def test_what_would_be_used_is_said_with_where_it_comes_from(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "unmask.toml"
    path.write_text(
        f'[engine]\nmodel = "{model}"\nmax_queued = 7\n'
        f'[server]\ntoken = "{SECRET}"\nport = 1\ntrusted_proxies = ["10.0.0.0/8", "::1"]\nbehind_proxy = true\n'
    )
    finished = check(
        tmp_path, "--config", path, "--port", 2, UNMASK_SERVER_ALLOWED_HOSTS="a.example, b.example",
        UNMASK_ENGINE_DEVICE="cpu",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    lines = [re.split(r"\s+# ", line) for line in finished.out.decode().splitlines()]
    assert ["max_queued = 7", str(path)] in lines
    assert ["port = 2", "flag"] in lines
    assert ['device = "cpu"', "UNMASK_ENGINE_DEVICE"] in lines
    assert ['allowed_hosts = ["a.example", "b.example"]', "UNMASK_SERVER_ALLOWED_HOSTS"] in lines
    assert ['trusted_proxies = ["10.0.0.0/8", "::1"]', str(path)] in lines
    assert ["behind_proxy = true", str(path)] in lines
    assert ['host = "127.0.0.1"', "default"] in lines
    assert SECRET not in finished.out.decode() + finished.err
    # It is a file that the server reads.
    assert tomllib.loads(finished.out.decode())["server"]["port"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tls-certificate", "x.pem"], "server.tls_certificate and server.tls_key belong together"),
        (["--tls-certificate", "/no/x.pem", "--tls-key", "/no/x.key"], "cannot read /no/x.pem"),
        (["--token-file", "/no/token"], "server.token_file: cannot read /no/token"),
        (["--model", "/no/model"], "/no/model does not exist"),
        (["--model", "gpt-9"], "model 'gpt-9' is unknown"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, model: Path, arguments: list[str], message: str) -> None:
    finished = check(tmp_path, *(["--model", model] if "--model" not in arguments else []), *arguments)
    assert finished.code in (1, 2)
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", finished.err).split())


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("FALSE", False), ("no", False)])
def test_switches_in_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("UNMASK_SERVER_BEHIND_PROXY", text)
    assert merge_config(ServerConfig, "server", {}).behind_proxy is value
    monkeypatch.setenv("UNMASK_SERVER_BEHIND_PROXY", "perhaps")
    with pytest.raises(ConfigError, match="UNMASK_SERVER_BEHIND_PROXY is 'perhaps': true or false"):
        merge_config(ServerConfig, "server", {})


def test_a_list_in_a_file_is_one_of_texts() -> None:
    for wrong in ("10.0.0.1", [1], {}):
        with pytest.raises(ConfigError, match=r"server\.trusted_proxies"):
            merge_config(ServerConfig, "server", {"server": {"trusted_proxies": wrong}})
