"""A server process with users: what the database says holds, whoever changes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from helpers.many_users import ManyUsers, run_many_users
from helpers.running_server import wait_until

from diffusion_core.accounts.records import UserChanges
from diffusion_core.callers import Scope
from diffusion_core.net.protocol import WireError, decode


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyUsers]:
    with run_many_users(tmp_path_factory.mktemp("many")) as running:
        yield running


def wait_for_status(server: ManyUsers, token: str, status: int) -> float:
    """Seconds until the server answers ``token`` so."""
    began = time.monotonic()
    wait_until(lambda: server.complete(token).status_code == status)
    return time.monotonic() - began


def test_a_token_made_by_another_process_is_taken_and_its_use_noted(server: ManyUsers) -> None:
    token = server.token("alice")
    wait_for_status(server, token, 200)
    assert server.complete("unmask_" + "0" * 64).status_code == 401
    assert not any(token in line for line in server.log)


@pytest.mark.parametrize("way", ["revoked", "disabled", "removed"])
def test_what_is_taken_away_is_refused_soon_also_on_an_open_connection(server: ManyUsers, way: str) -> None:
    token = server.token(f"leaver-{way}")
    wait_for_status(server, token, 200)
    with httpx.Client(trust_env=False) as client:
        assert server.complete(token, client).status_code == 200
        if way == "revoked":
            [known] = server.accounts.tokens(f"leaver-{way}")
            server.accounts.revoke_token(known.id, actor="test")
        elif way == "disabled":
            server.accounts.change_user(f"leaver-{way}", UserChanges(is_disabled=True), actor="test")
        else:
            server.accounts.remove_user(f"leaver-{way}", actor="test")
        changed = time.monotonic()
        while (answer := server.complete(token, client)).status_code == 200:
            assert time.monotonic() - changed < 5
        assert decode(answer.content, WireError).code == "unauthorized"


def test_a_token_expires_while_its_connection_is_open(server: ManyUsers) -> None:
    token = server.token("visitor", lifetime=timedelta(seconds=1.5))
    wait_for_status(server, token, 200)
    time.sleep(1.5)
    assert server.complete(token).status_code == 401


def test_a_token_allows_what_its_scopes_say(server: ManyUsers) -> None:
    token = server.token("editor", Scope.EDIT)
    wait_for_status(server, token, 403)
    assert decode(server.complete(token).content, WireError).code == "forbidden"


def test_the_first_start_says_how_to_become_an_administrator(tmp_path: Path) -> None:
    with run_many_users(tmp_path) as server:
        greeting = "".join(server.log)
        assert "unmask token create NAME --scope complete,edit,admin" in greeting
        token = server.token("root", Scope.ADMIN, Scope.COMPLETE)
        wait_for_status(server, token, 200)
    with run_many_users(tmp_path) as server:
        assert "administrator" not in "".join(server.log)
        [known] = server.accounts.tokens("root")
        assert known.last_used_at is not None  # written down at the latest when the server stops
        assert server.complete(token).status_code == 200
