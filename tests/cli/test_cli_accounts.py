"""`unmask user`, `token`, `workspace`, `audit` and `database`: as an administrator types them."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from helpers.unmask_process import Unmask


@pytest.fixture
def shell(tmp_path: Path) -> Unmask:
    return Unmask(tmp_path)


def test_from_nothing_to_a_token_and_back(shell: Unmask) -> None:
    assert shell.run("user", "add", "anna").code == 0
    made = shell.run("token", "create", "anna", "--name", "laptop", "--expires", "30d", "--scope", "edit,complete")
    assert re.fullmatch(rb"unmask_[0-9a-f]{64}\n", made.out)  # alone on stdout, for a pipe into a file
    assert "shown only now" in made.err
    listed = shell.run("token", "list", "--json").json["tokens"]
    assert [(each["user"], each["name"], each["scopes"]) for each in listed] == [
        ("anna", "laptop", ["complete", "edit"])
    ]
    assert made.out.decode().startswith(listed[0]["beginning"])
    table = shell.run("token", "list").out.decode()
    assert "laptop" in table
    assert made.out.decode().strip() not in table
    assert shell.run("token", "revoke", 1).out.decode() == "Token 1 of anna is revoked.\n"
    assert shell.run("token", "list", "--json").json == {"tokens": []}
    assert shell.run("token", "list", "--all", "--json").json["tokens"][0]["revoked_at"]
    assert stat.S_IMODE((shell.folder / "state" / "server.db").stat().st_mode) == 0o600


def test_users_workspaces_limits_and_the_audit_log(shell: Unmask) -> None:
    database = ("--database", f"sqlite:///{shell.folder / 'other.db'}")
    shell.run("workspace", "add", "backend", *database)
    shell.run("user", "add", "anna", "--workspace", "backend", "--requests-per-minute", 60, *database)
    anna = shell.run("user", "set", "anna", "--requests-at-once", 0, "--json", *database).json
    assert (anna["workspace"], anna["requests_per_minute"], anna["requests_at_once"]) == ("backend", 60, 0)
    reset = ("--requests-per-minute", "default", "--workspace", "-")
    anna = shell.run("user", "set", "anna", *reset, "--json", *database).json
    assert (anna["workspace"], anna["requests_per_minute"]) == (None, None)
    assert shell.run("user", "disable", "anna", "--json", *database).json["is_disabled"]
    assert not shell.run("user", "enable", "anna", "--json", *database).json["is_disabled"]
    assert "anna" in shell.run("user", "list", *database).out.decode()
    entries = shell.run("audit", "--json", *database).json["audit"]
    assert [each["action"] for each in reversed(entries)] == [
        "workspace.add", "user.add", "user.move", "user.set", "user.set", "user.move", "user.disable", "user.enable",
    ]  # fmt: skip
    assert all(each["actor"].startswith("cli") for each in entries)
    assert "user.move" in shell.run("audit", *database).out.decode()
    assert shell.run("user", "remove", "anna", "--json", *database).json == {"removed": "anna"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("token", "create", "nobody"), 1, "there is no user 'nobody'"),
        (("user", "add", "Anna Smith"), 1, "the name of a user is"),
        (("token", "create", "anna", "--expires", "soon"), 2, "is no duration"),
        (("token", "create", "anna", "--scope", "root"), 2, "is no scope"),
        (("token", "revoke"), 2, "give either the ID"),
        (("user", "set", "anna", "--requests-at-once", "many"), 2, "give a number or default"),
        (("user", "list", "--database", "mysql://u:s3cret@host/d"), 1, "supported are sqlite and postgresql"),
    ],
)
def test_what_is_wrong_is_said_with_the_right_exit_code(
    shell: Unmask, arguments: tuple[str, ...], code: int, message: str
) -> None:
    finished = shell.run(*arguments)
    assert finished.code == code
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", finished.err).split())
    assert "s3cret" not in finished.err


def test_the_database_is_upgraded_by_name(shell: Unmask) -> None:
    first = shell.run("database", "upgrade", "--json").json
    assert (first["before"], bool(first["after"])) == ("", True)
    assert "already" in shell.run("database", "upgrade").out.decode()
