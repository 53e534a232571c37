"""Tokens, durations, names: what is taken, what is refused, and that refusing tells nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.accounts.database import Database
from diffusion_core.accounts.directory import Directory
from diffusion_core.accounts.durations import MAX_DAYS, parse_duration
from diffusion_core.accounts.naming import check_label, check_name, parse_scopes
from diffusion_core.accounts.open import open_accounts
from diffusion_core.accounts.records import UserChanges
from diffusion_core.accounts.store import Accounts
from diffusion_core.accounts.tokens import beginning_of, digest_of, make_token
from diffusion_core.callers import Limits, Scope
from diffusion_core.errors import AccountsUnavailable, Conflict, InvalidRequest, NotFound, Unauthorized

BOTH = (Scope.COMPLETE, Scope.EDIT)


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    with closing(open_accounts(f"sqlite:///{tmp_path / 'server.db'}")) as opened:
        opened.add_user("alice", actor="test")
        yield opened


def test_tokens_are_long_alike_and_all_different() -> None:
    made = [make_token() for _ in range(200)]
    assert all(re.fullmatch("unmask_[0-9a-f]{64}", token) for token in made)
    assert len({token[7:] for token in made}) == 200
    assert len(beginning_of(made[0])) == len("unmask_") + 6
    assert len(digest_of("\udcff")) == 32  # what a header can hold is never an error


def test_the_database_holds_no_token(accounts: Accounts, tmp_path: Path) -> None:
    secret = accounts.create_token("alice", actor="test", scopes=BOTH)[1]
    accounts.close()
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert secret.encode() not in content
        assert bytes.fromhex(secret.removeprefix("unmask_")) not in content


@given(st.integers(1, 10**8), st.sampled_from("mhdw"))
def test_durations_are_exact_or_refused(number: int, unit: str) -> None:
    seconds = number * {"m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
    if seconds <= MAX_DAYS * 86400:
        assert parse_duration(f"{number}{unit}") == timedelta(seconds=seconds)
    else:
        with pytest.raises(InvalidRequest, match="longer than 3650 days"):
            parse_duration(f"{number}{unit}")


@given(st.text(max_size=12))
@settings(max_examples=50, deadline=None)
def test_no_text_is_a_duration_by_accident(text: str) -> None:
    if re.fullmatch(r"[1-9][0-9]{0,8}[mhdw]|never", text, re.ASCII):
        return
    with pytest.raises(InvalidRequest, match="no duration"):
        parse_duration(text)


@given(st.text(max_size=70))
def test_names_are_plain(name: str) -> None:
    if re.fullmatch(r"[a-z0-9][a-z0-9._@-]{0,63}", name, re.ASCII) and not name.endswith("\n"):
        assert check_name(name, "user") == name
    else:
        with pytest.raises(InvalidRequest, match="the name of a user is"):
            check_name(name, "user")


def test_labels_and_scopes() -> None:
    assert check_label("Anna's laptop, 2nd") == "Anna's laptop, 2nd"
    for label in ("a\nb", "\x1b[31m", "x" * 65):
        with pytest.raises(InvalidRequest, match="printable"):
            check_label(label)
    assert parse_scopes(["edit", "complete", "edit"]) == BOTH
    for names in ([], ["everything"], ["COMPLETE"]):
        with pytest.raises(InvalidRequest, match=r"known are|give some of"):
            parse_scopes(names)


@given(lifetime_s=st.integers(0, 10**9), asked_s=st.integers(0, 2 * 10**9))
@settings(max_examples=50, deadline=None)
def test_a_token_is_good_until_it_expires_and_not_a_moment_longer(lifetime_s: int, asked_s: int) -> None:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    grant_until = made + timedelta(seconds=lifetime_s)
    directory = Directory(_OneToken(grant_until), Limits(), clock=lambda: made + timedelta(seconds=asked_s))  # type: ignore[arg-type]
    directory.refresh()
    if asked_s < lifetime_s:
        assert directory.find("t").user == "alice"
    else:
        with pytest.raises(Unauthorized):
            directory.find("t")


class _OneToken:
    """Accounts of one token, for thousands of clocks."""

    def __init__(self, expires_at: datetime) -> None:
        self._expires_at = expires_at

    def grants(self, defaults: Limits) -> tuple[int, list[object]]:
        from diffusion_core.accounts.convert import Grant
        from diffusion_core.callers import Caller

        caller = Caller(user="alice", space="user-1", scopes=frozenset(BOTH))
        return 1, [Grant(1, digest_of("t"), caller, self._expires_at)]


def test_what_this_process_changes_holds_at_once(accounts: Accounts) -> None:
    directory = Directory(accounts, Limits(requests_per_minute=7), poll_s=60)
    directory.start()
    with closing(directory):
        token, secret = accounts.create_token("alice", actor="test", scopes=BOTH)
        assert directory.find(secret).limits == Limits(requests_per_minute=7)
        accounts.change_user("alice", UserChanges(requests_per_minute=0, requests_at_once=3), actor="test")
        assert directory.find(secret).limits == Limits(requests_at_once=3)
        accounts.add_workspace("backend", actor="test")
        accounts.add_user("ben", actor="test", changes=UserChanges(workspace="backend"))
        accounts.change_user("alice", UserChanges(workspace="backend"), actor="test")
        other = accounts.create_token("ben", actor="test", scopes=BOTH)[1]
        assert directory.find(secret).space == directory.find(other).space == "workspace-1"
        accounts.remove_workspace("backend", actor="test")
        assert {directory.find(each).space for each in (secret, other)} == {"user-1", "user-2"}
        accounts.revoke_token(token.id, actor="test")
        with pytest.raises(Unauthorized):
            directory.find(secret)


def test_without_the_database_known_users_go_on_for_a_while_and_then_nobody(accounts: Accounts, tmp_path: Path) -> None:
    secret = accounts.create_token("alice", actor="test", scopes=BOTH)[1]
    directory = Directory(accounts, Limits(), poll_s=0.02, grace_s=2.0)
    directory.start()
    with closing(directory):
        assert directory.find(secret).user == "alice"
        with closing(Database(f"sqlite:///{tmp_path / 'server.db'}")) as other, other.connecting() as connection:
            connection.exec_driver_sql("ALTER TABLE changes RENAME TO gone")
        lost = time.monotonic()
        assert directory.find(secret).user == "alice"
        while directory.is_current:
            assert time.monotonic() - lost < 20
            time.sleep(0.02)
        for token in (secret, "unknown"):
            with pytest.raises(AccountsUnavailable):
                directory.find(token)
        with closing(Database(f"sqlite:///{tmp_path / 'server.db'}")) as other, other.connecting() as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO changes")
        while not directory.is_current:
            assert time.monotonic() - lost < 40
            time.sleep(0.02)
        assert directory.find(secret).user == "alice"


def test_the_time_of_a_refusal_says_nothing_about_its_reason(accounts: Accounts) -> None:
    made = {name: accounts.create_token("alice", actor="test", scopes=BOTH)[1] for name in ("good", "revoked")}
    made["expired"] = accounts.create_token("alice", actor="test", scopes=BOTH, lifetime=timedelta(0))[1]
    accounts.revoke_token(2, actor="test")
    directory = Directory(accounts, Limits(), poll_s=60)
    directory.refresh()
    attempts = {
        "unknown": make_token(), "nearly right": made["good"][:-1] + "x", "revoked": made["revoked"],
        "expired": made["expired"],
    }  # fmt: skip
    times: dict[str, list[int]] = {name: [] for name in attempts}
    for _ in range(1500):
        for name, token in attempts.items():  # in turns, so that a busy machine is busy for all of them
            began = time.perf_counter_ns()
            with _ExpectingRefusal():
                directory.find(token)
            times[name].append(time.perf_counter_ns() - began)
    medians = {name: median(each) for name, each in times.items()}
    assert max(medians.values()) < 1.5 * min(medians.values()), medians


def test_the_audit_log_says_who_did_what_to_whom_and_no_secret(accounts: Accounts) -> None:
    token, secret = accounts.create_token("alice", actor="boss", scopes=BOTH, name="laptop", lifetime=timedelta(days=1))
    accounts.change_user("alice", UserChanges(requests_at_once=2, is_disabled=True), actor="boss")
    accounts.change_user("alice", UserChanges(is_disabled=True), actor="boss")  # changes nothing, says nothing
    accounts.revoke_token(token.id, actor="cli:root")
    accounts.revoke_token(token.id, actor="cli:root")
    accounts.remove_user("alice", actor="boss")
    entries = accounts.audit()
    assert [(each.actor, each.action, each.target) for each in reversed(entries)] == [
        ("test", "user.add", "alice"),
        ("boss", "token.create", "alice"),
        ("boss", "user.disable", "alice"),
        ("boss", "user.set", "alice"),
        ("cli:root", "token.revoke", "alice"),
        ("boss", "user.remove", "alice"),
    ]
    assert secret[7:] not in repr(entries)
    assert entries[-2].detail == {
        "token": 1, "name": "laptop", "scopes": ["complete", "edit"],
        "expires": token.expires_at.isoformat(timespec="seconds") if token.expires_at else "",
    }  # fmt: skip
    assert [each.id for each in accounts.audit(2, before=entries[1].id)] == [each.id for each in entries[2:4]]


def test_what_cannot_be_done_is_refused_and_changes_nothing(accounts: Accounts) -> None:
    before = (accounts.users(), accounts.audit(), accounts.change_number())
    for error, attempt in (
        (Conflict, lambda: accounts.add_user("alice", actor="test")),
        (InvalidRequest, lambda: accounts.add_user("Alice Smith", actor="test")),
        (NotFound, lambda: accounts.add_user("ben", actor="test", changes=UserChanges(workspace="nowhere"))),
        (InvalidRequest, lambda: accounts.change_user("alice", UserChanges(requests_at_once=-1), actor="test")),
        (NotFound, lambda: accounts.create_token("nobody", actor="test", scopes=BOTH)),
        (NotFound, lambda: accounts.revoke_token(7, actor="test")),
        (NotFound, lambda: accounts.tokens("nobody")),
    ):
        with pytest.raises(error):
            attempt()
    assert (accounts.users(), accounts.audit(), accounts.change_number()) == before


class _ExpectingRefusal:
    """As pytest.raises, but as fast for a time to be taken."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        assert kind is Unauthorized
        return True
