"""Administration over HTTP, at a real server: what docs/admin-api.md says, and that it holds at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.many_users import ManyUsers, run_many_users
from helpers.running_server import TOKEN as SINGLE
from helpers.running_server import run_engine_server, wait_until
from helpers.scripted_engine import ScriptedEngine

import diffusion_core.net
from diffusion_core.callers import Scope


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyUsers]:
    with run_many_users(tmp_path_factory.mktemp("admin")) as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: ManyUsers) -> Iterator[httpx.Client]:
    token = server.token("boss", Scope.ADMIN)
    headers = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{server.url}/v1/admin", headers=headers, trust_env=False, timeout=10) as client:
        wait_until(lambda: client.get("/users").status_code == 200)
        yield client


def make_user(admin: httpx.Client, name: str, **fields: Any) -> str:
    """A user with a token, made over HTTP; returns the token."""
    assert admin.post("/users", json={"name": name, **fields}).status_code == 201
    answer = admin.post("/tokens", json={"user": name, "scopes": ["complete"], "name": "laptop", "expires": "1d"})
    assert answer.status_code == 201
    return str(answer.json()["token"])


def test_a_user_from_the_first_day_to_the_last(server: ManyUsers, admin: httpx.Client) -> None:
    token = make_user(admin, "anna")
    assert server.complete(token).status_code == 200  # at once: this very process made it
    [known] = admin.get("/tokens", params={"user": "anna"}).json()["tokens"]
    assert token.startswith(known["beginning"])
    assert token not in str(admin.get("/tokens").json())
    assert known["scopes"] == ["complete"]
    assert admin.patch("/users/anna", json={"is_disabled": True}).json()["is_disabled"] is True
    assert server.complete(token).status_code == 401
    admin.patch("/users/anna", json={"is_disabled": False})
    assert server.complete(token).status_code == 200
    with httpx.Client(trust_env=False) as kept_alive:
        assert server.complete(token, kept_alive).status_code == 200
        assert admin.delete(f"/tokens/{known['id']}").json()["revoked_at"]
        assert server.complete(token, kept_alive).status_code == 401
    assert admin.get("/users/anna").json()["num_tokens"] == 0
    assert admin.delete("/users/anna").status_code == 204
    assert admin.get("/users/anna").status_code == 404
    actions = [(each["actor"], each["action"]) for each in admin.get("/audit").json()["audit"]]
    assert actions[:5] == [
        ("boss", "user.remove"), ("boss", "token.revoke"), ("boss", "user.enable"), ("boss", "user.disable"),
        ("boss", "token.create"),
    ]  # fmt: skip
    assert token not in str(admin.get("/audit").json()) + "".join(server.log)


def test_limits_hold_at_once_and_say_when_to_come_again(server: ManyUsers, admin: httpx.Client) -> None:
    token = make_user(admin, "ben", requests_per_minute=2)
    assert [server.complete(token).status_code for _ in range(3)] == [200, 200, 429]
    refused = server.complete(token)
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    admin.patch("/users/ben", json={"requests_per_minute": None, "max_request_bytes": 2000})
    assert server.complete(token).status_code == 200
    large = server.complete(token, prefix="x" * 2000)
    assert large.status_code == 413
    assert b"2000 bytes (your own limit)" in large.content
    admin.patch("/users/ben", json={"max_request_bytes": 0})
    assert server.complete(token, prefix="x" * 2000).status_code == 200


def test_a_place_is_free_as_soon_as_its_client_left(server: ManyUsers, admin: httpx.Client) -> None:
    token = make_user(admin, "cleo", requests_at_once=1)
    for _ in range(5):
        with httpx.Client(trust_env=False, timeout=0.1) as client, pytest.raises(httpx.ReadTimeout):
            server.complete(token, client, max_tokens=5000)
        wait_until(lambda: server.complete(token).status_code == 200, timeout_s=1)


def test_workspaces(admin: httpx.Client) -> None:
    assert admin.post("/workspaces", json={"name": "backend"}).json()["members"] == []
    assert admin.post("/workspaces", json={"name": "backend"}).status_code == 409
    admin.post("/users", json={"name": "dora", "workspace": "backend"})
    admin.post("/users", json={"name": "emil"})
    admin.patch("/users/emil", json={"workspace": "backend"})
    [found] = admin.get("/workspaces").json()["workspaces"]
    assert found["members"] == ["dora", "emil"]
    assert admin.patch("/users/emil", json={"workspace": None}).json()["workspace"] is None
    assert admin.delete("/workspaces/backend").status_code == 204
    assert admin.get("/users/dora").json()["workspace"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/users", {}, 400, "name: missing field"),
        ("POST", "/users", {"name": "Anna"}, 400, "the name of a user is"),
        ("POST", "/users", {"name": "a", "admin": True}, 400, "unknown field: known are name"),
        ("POST", "/users", {"name": 7}, 400, "name: text expected"),
        ("POST", "/users", {"name": "boss"}, 409, "there is a user boss already"),
        ("POST", "/users", {"name": "f", "requests_per_minute": True}, 400, "a whole number or null expected"),
        ("POST", "/users", {"name": "f", "requests_per_minute": -1}, 400, "requests_per_minute is -1"),
        ("POST", "/users", {"name": "f", "requests_per_minute": 10**30}, 400, "allowed is 0"),
        ("POST", "/users", {"name": "f", "workspace": "nowhere"}, 404, "no workspace 'nowhere'"),
        ("POST", "/users", [], 400, "must be a JSON object"),
        ("PATCH", "/users/nobody", {}, 404, "no user 'nobody'"),
        ("POST", "/tokens", {"user": "boss", "scopes": []}, 400, "without a scope"),
        ("POST", "/tokens", {"user": "boss", "scopes": ["all"]}, 400, "'all' is no scope"),
        ("POST", "/tokens", {"user": "boss", "scopes": [1]}, 400, "a list of texts expected"),
        ("POST", "/tokens", {"user": "boss", "scopes": ["edit"], "expires": "3y"}, 400, "no duration"),
        ("POST", "/tokens", {"user": "nobody", "scopes": ["edit"]}, 404, "no user 'nobody'"),
        ("DELETE", "/tokens/99999", None, 404, "no token 99999"),
        ("DELETE", "/tokens/7.5", None, 400, "a whole number above 0"),
        ("DELETE", "/tokens/99999999999999999999", None, 400, "a whole number above 0"),
        ("GET", "/audit?limit=-1", None, 400, "limit: a whole number"),
        ("GET", "/tokens?user=nobody", None, 404, "no user"),
    ],
)
def test_what_is_wrong_is_named(
    admin: httpx.Client, method: str, path: str, body: Any, status: int, message: str
) -> None:
    answer = admin.request(method, path, json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert set(answer.json()["error"]) == {"code", "message", "retryable"}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 50_000, b'{"name": "' + b"x" * 70_000 + b'"}'])
def test_what_is_no_json_is_refused(admin: httpx.Client, content: bytes) -> None:
    answer = admin.post("/users", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == (413 if len(content) > 65536 else 400)
    assert admin.post("/users", content=b"name=x").status_code == 400


def test_half_a_surrogate_pair_is_no_name(admin: httpx.Client) -> None:
    answer = admin.post("/users", content=b'{"name": "\\ud800"}', headers={"content-type": "application/json"})
    assert (answer.status_code, "surrogate" in answer.json()["error"]["message"]) == (400, True)


def test_a_server_with_one_token_says_that_it_has_no_users() -> None:
    with run_engine_server(ScriptedEngine()) as running:
        base = f"{running.url}/v1/admin"
        headers = {"authorization": f"Bearer {SINGLE}"}
        assert httpx.get(f"{base}/limits", headers=headers, trust_env=False).json()["users"] == "single"
        answer = httpx.get(f"{base}/users", headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_documentation_names_every_route_and_field(admin: httpx.Client) -> None:
    text = (Path(diffusion_core.net.__file__).parent / "docs" / "admin-api.md").read_text()
    users = admin.get("/users").json()["users"]
    tokens = admin.get("/tokens").json()["tokens"]
    entries = admin.get("/audit").json()["audit"]
    for record in (users[0], tokens[0], entries[0]):
        assert all(f'"{name}"' in text for name in record)
    for action in {entry["action"] for entry in entries}:
        assert f"`{action}`" in text
    assert len(re.findall(r"^\| `(GET|POST|PATCH|DELETE)` ", text, re.MULTILINE)) == 13
