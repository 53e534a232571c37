"""Strangers at a real server with users: whatever they try, they get the same answer, and nobody else's."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from datetime import timedelta

import pytest
from helpers.many_users import ManyUsers, run_many_users
from helpers.running_server import wait_until

from diffusion_core.accounts.records import UserChanges
from diffusion_core.callers import Scope
from diffusion_core.net.protocol import CONTENT_TYPE, encode
from diffusion_core.requests import CompletionRequest

BODY = encode(CompletionRequest(prefix="abc", max_tokens=1))
UNKNOWN = "unmask_" + "0" * 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyUsers]:
    with run_many_users(tmp_path_factory.mktemp("refusing")) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(server: ManyUsers) -> dict[str, str]:
    """One of each kind, known to the server."""
    made = {name: server.token(name) for name in ("good", "revoked", "disabled", "removed")}
    made["expired"] = server.token("good", lifetime=timedelta(seconds=0))
    made["edits"] = server.token("good", Scope.EDIT)
    made["admin"] = server.token("boss", Scope.ADMIN)
    server.accounts.revoke_tokens_of("revoked", actor="test")
    server.accounts.change_user("disabled", UserChanges(is_disabled=True), actor="test")
    server.accounts.remove_user("removed", actor="test")
    wait_until(lambda: server.complete(made["edits"]).status_code == 403)
    wait_until(lambda: server.complete(made["removed"]).status_code == 401)
    return made


def send(
    server: ManyUsers, headers: list[tuple[bytes, bytes]], *, method: str = "POST", path: bytes = b"/v1/complete"
) -> tuple[int, bytes]:
    """A request exactly as given: no client in between that would tidy it."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.putrequest(method, path.decode("latin-1"), skip_accept_encoding=True)
        for name, value in [(b"content-type", CONTENT_TYPE.encode()), *headers]:
            connection.putheader(name.decode(), value)
        content = BODY if method == "POST" else b""
        connection.putheader("content-length", str(len(content)))
        connection.endheaders(content)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def bearer(token: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {token}".encode("latin-1")


def test_every_stranger_gets_the_same_answer(server: ManyUsers, tokens: dict[str, str]) -> None:
    good = tokens["good"]
    assert send(server, [bearer(good)])[0] == 200
    attempts = {
        "missing": [],
        "unknown": [bearer(UNKNOWN)],
        "expired": [bearer(tokens["expired"])],
        "revoked": [bearer(tokens["revoked"])],
        "disabled": [bearer(tokens["disabled"])],
        "removed": [bearer(tokens["removed"])],
        "another scheme": [(b"authorization", b"Basic " + good.encode())],
        "no scheme": [(b"authorization", good.encode())],
        "empty": [(b"authorization", b"")],
        "empty token": [bearer("")],
        "two headers": [bearer(good), bearer(UNKNOWN)],
        "twice the same": [bearer(good), bearer(good)],
        "two tokens": [bearer(f"{good} {good}")],
        "a list": [bearer(f"{good},{UNKNOWN}")],
        "cut": [bearer(good[:-1])],
        "longer": [bearer(good + "0")],
        "upper case": [bearer(good.upper())],
        "without its mark": [bearer(good.removeprefix("unmask_"))],
        "not ASCII": [(b"authorization", b"Bearer \xff\xfe\xe4")],
        "UTF-8": [(b"authorization", "Bearer ключ".encode())],
        "SQL": [bearer("' OR '1'='1")],
        "more SQL": [bearer("x'; DROP TABLE tokens; --")],
        "percent": [bearer("%")],
        "a digest": [bearer("0" * 64)],
        "large": [bearer("x" * 16_000)],
        "another header": [(b"x-authorization", f"Bearer {good}".encode())],
        "a cookie": [(b"cookie", f"authorization=Bearer {good}".encode())],
        "a proxy's header": [(b"proxy-authorization", f"Bearer {good}".encode())],
        "a user's name": [(b"x-forwarded-user", b"boss"), (b"x-remote-user", b"boss")],
    }
    answers = {name: send(server, headers) for name, headers in attempts.items()}
    assert {status for status, _ in answers.values()} == {401}, answers
    assert len({body for _, body in answers.values()}) == 1
    assert send(server, [bearer(good)])[0] == 200  # nothing was dropped
    log = "".join(server.log)
    assert not any(token in log for token in tokens.values())


def test_a_header_without_end_is_refused_and_the_server_goes_on(server: ManyUsers, tokens: dict[str, str]) -> None:
    try:
        status, _ = send(server, [bearer("x" * 200_000)])
    except ConnectionError:
        status = 400  # it hung up before it had read all of it
    assert status in {400, 401, 431}
    assert send(server, [bearer(tokens["good"])])[0] == 200


@pytest.mark.parametrize("token", ["", "good"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", b"//v1/complete"),
        ("POST", b"/v1//complete"),
        ("POST", b"/v1/complete/"),
        ("POST", b"/V1/COMPLETE"),
        ("POST", b"/v1/complete%00"),
        ("POST", b"/v1%2fcomplete%2f"),
        ("POST", b"/livez/../v1/complete"),
        ("POST", b"/livez%2f..%2fv1%2fcomplete"),
        ("POST", b"/%2e/v1/complete"),
        ("GET", b"/v1/../livez"),
        ("GET", b"/./livez"),
        ("GET", b"//livez"),
        ("GET", b"/livez/"),
        ("GET", b"/livez/../v1/health"),
        ("GET", b"/livez;/v1/health"),
        ("GET", b"/LIVEZ"),
        ("GET", b"/v1/complete"),
        ("GET", b"/v1/admin/users/"),
        ("TRACE", b"/v1/health"),
    ],
)
def test_no_other_spelling_of_a_path_leads_anywhere(
    server: ManyUsers, tokens: dict[str, str], token: str, method: str, path: bytes
) -> None:
    status, _ = send(server, [bearer(tokens[token])] if token else [], method=method, path=path)
    assert status in ({404, 405} if token else {401})


@pytest.mark.parametrize("path", [b"/v1/complete", b"/v1/complete?x=/livez", b"/v1%2Fcomplete", b"/v1/%63omplete"])
def test_what_is_the_same_path_needs_the_token_too(server: ManyUsers, tokens: dict[str, str], path: bytes) -> None:
    assert send(server, [], path=path)[0] == 401
    assert send(server, [bearer(tokens["good"])], path=path)[0] == 200


@pytest.mark.parametrize(
    "header", [b"x-http-method-override", b"x-method-override", b"x-original-url", b"x-rewrite-url"]
)
def test_no_header_changes_what_is_asked_for(server: ManyUsers, tokens: dict[str, str], header: bytes) -> None:
    for value in (b"POST", b"/livez", b"/v1/admin/users"):
        assert send(server, [(header, value)], method="GET", path=b"/v1/health")[0] == 401
        status, body = send(server, [bearer(tokens["good"]), (header, value)], method="GET", path=b"/v1/health")
        assert status == 200
        assert b"health" in body[:40]


def test_a_websocket_is_no_way_in(server: ManyUsers, tokens: dict[str, str]) -> None:
    upgrade = [
        (b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ]  # fmt: skip
    assert send(server, upgrade, method="GET", path=b"/v1/health")[0] in {401, 403}


@pytest.mark.parametrize("path", ["users", "tokens", "workspaces", "audit", "limits", "users/good"])
def test_only_administrators_administer(server: ManyUsers, tokens: dict[str, str], path: str) -> None:
    for token, status in (("", 401), (tokens["good"], 403), (tokens["edits"], 403), (tokens["admin"], 200)):
        assert send(server, [bearer(token)], method="GET", path=f"/v1/admin/{path}".encode())[0] == status
    assert server.complete(tokens["admin"]).status_code == 403
