"""Where `unmask login` keeps tokens: a keyring if there is one, else a file that nobody else can read."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backends.fail
import keyring.errors
import pytest
from keyring.backend import KeyringBackend

from diffusion_core.config import ClientConfig
from diffusion_core.errors import ConfigError
from diffusion_core.net.auth import resolve_client_token
from diffusion_core.net.token_store import account_of, find_token, forget_token, store_token, token_file


class MemoryKeyring(KeyringBackend):
    """A keyring of this process; ``is_locked`` refuses everything."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        if self.kept.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError("not found")

    def _check(self) -> None:
        if self.is_locked:
            raise keyring.errors.KeyringLocked("locked")


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("UNMASK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("UNMASK_CLIENT_TOKEN", raising=False)
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    yield
    keyring.set_keyring(before)


def test_one_address_in_all_its_spellings() -> None:
    assert account_of("https://GPU.example.org/") == account_of("https://gpu.example.org:443") != account_of("http://a")
    assert account_of("https://a/team") != account_of("https://a/other")


def test_without_a_keyring_a_file_of_the_user_alone() -> None:
    place = store_token("https://a", "s3cret")
    assert not place.is_keyring and str(token_file()) in place.description
    store_token("https://b", "another")
    assert stat.S_IMODE(token_file().stat().st_mode) == 0o600
    assert (find_token("https://a:443/"), find_token("https://b"), find_token("https://c")) == ("s3cret", "another", "")
    assert forget_token("https://a") and not forget_token("https://a")
    assert find_token("https://a") == ""
    assert forget_token("https://b") and not token_file().exists()


def test_a_keyring_is_preferred_and_takes_over_from_the_file() -> None:
    store_token("https://a", "in-file")
    ring = MemoryKeyring()
    keyring.set_keyring(ring)
    assert store_token("https://a", "in-ring").is_keyring
    assert not token_file().exists()
    assert find_token("https://a") == "in-ring" and ring.kept == {("unmask", "https://a:443"): "in-ring"}
    assert forget_token("https://a") and ring.kept == {}


def test_a_locked_keyring_leaves_the_file(caplog: pytest.LogCaptureFixture) -> None:
    ring = MemoryKeyring()
    ring.is_locked = True
    keyring.set_keyring(ring)
    assert not store_token("https://a", "s3cret").is_keyring
    assert find_token("https://a") == "s3cret" and find_token("https://b") == ""
    assert "KeyringLocked" in caplog.text and "s3cret" not in caplog.text


def test_a_damaged_file_is_named() -> None:
    store_token("https://a", "s3cret")
    for content in ("{s3cret", '["s3cret"]'):
        token_file().write_text(content)
        with pytest.raises(ConfigError, match=r"tokens\.json.*remove it and run `unmask login`") as caught:
            find_token("https://a")
        assert "s3cret" not in str(caught.value)


def test_a_setting_and_the_environment_come_before_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClientConfig(url="https://a", more_urls=("https://b",))
    with pytest.raises(ConfigError, match=r"unmask login https://a`, or give client\.token"):
        resolve_client_token(config)
    store_token("https://a", "kept")
    assert resolve_client_token(config) == resolve_client_token(config, "https://b") == "kept"
    store_token("https://b", "kept-for-b")
    assert resolve_client_token(config, "https://b") == "kept-for-b"
    monkeypatch.setenv("UNMASK_CLIENT_TOKEN", "from-environment")
    assert resolve_client_token(config) == "from-environment"
    assert resolve_client_token(ClientConfig(url="https://a", token="set")) == "set"
