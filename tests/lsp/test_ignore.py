"""Ignore rules, against git itself."""

import os
import shutil
import subprocess
import time

import pytest

from lsp_server.context.ignore import LOOK_AGAIN_S, IgnoreRules, path_of_uri
from lsp_server.settings import Settings

SECRETS = Settings().ignore.globs


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with git")
def test_the_rules_are_gits(tmp_path):
    files = {
        ".gitignore": "*.log\n/build/\n!keep.log\n**/gen/*.py\ndocs/*.md\n# note\n\\#odd\ntrailing   \n[broken\n",
        "pkg/.gitignore": "!important.log\nlocal.py\n/anchored.py\n",
        "a.log": "", "keep.log": "", "build/x.py": "", "pkg/build/x.py": "", "pkg/important.log": "", "pkg/b.log": "",
        "pkg/local.py": "", "pkg/sub/local.py": "", "pkg/anchored.py": "", "pkg/sub/anchored.py": "",
        "gen/a.py": "", "x/gen/b.py": "", "x/gen/c/d.py": "", "docs/a.md": "", "docs/sub/a.md": "", "#odd": "",
        "trailing": "", "main.py": "", "build/keep.log": "",
    }  # fmt: skip
    write(tmp_path, files)
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, env=environment)
    names = [name for name in files if not name.endswith(".gitignore")]
    done = subprocess.run(["git", "-C", str(tmp_path), "check-ignore", "--no-index", *names],
                          capture_output=True, text=True, env=environment)  # fmt: skip
    rules = IgnoreRules()
    ours = {name for name in names if rules.is_ignored(tmp_path / name)}
    assert ours == set(done.stdout.replace('"', "").split("\n")) - {""}
    assert len(ours) >= 8


def test_an_ignore_file_of_our_own_adds_and_takes_back(tmp_path):
    write(tmp_path, {".git/HEAD": "", ".gitignore": "*.gen.py\n", ".unmaskignore": "!a.gen.py\nprivate/\n"})
    rules = IgnoreRules()
    assert not rules.is_ignored(tmp_path / "a.gen.py")
    assert rules.is_ignored(tmp_path / "b.gen.py")
    assert rules.is_ignored(tmp_path / "private/x.py")
    assert rules.is_ignored(tmp_path / ".git/config")
    without = IgnoreRules(use_gitignore=False)
    assert not without.is_ignored(tmp_path / "b.gen.py")
    assert without.is_ignored(tmp_path / "private/x.py")


@pytest.mark.parametrize("name", [".env", "a/.env.local", "key.pem", "a/b/id.key", "x.cert", "x.crt", "secrets.yaml"])
def test_secrets_are_ignored_and_no_file_takes_them_back(tmp_path, name):
    write(tmp_path, {".git/HEAD": "", ".unmaskignore": "!*\n"})
    assert IgnoreRules(globs=SECRETS).is_ignored(tmp_path / name)
    assert not IgnoreRules().is_ignored(tmp_path / name)
    assert not IgnoreRules(globs=SECRETS).is_ignored(tmp_path / "environment.py")


def test_without_a_repository_the_workspace_folder_is_the_root(tmp_path):
    write(tmp_path, {".gitignore": "a.py\n", "work/.gitignore": "/b.py\n"})
    rules = IgnoreRules()
    assert rules.is_ignored(tmp_path / "work/b.py", [tmp_path / "work"])
    assert not rules.is_ignored(tmp_path / "work/sub/b.py", [tmp_path / "work"])
    assert not rules.is_ignored(tmp_path / "work/a.py", [tmp_path / "work"])  # that file is outside of the workspace
    assert not rules.is_ignored(tmp_path / "work/sub/b.py")


def test_a_changed_file_counts_after_a_moment(tmp_path, monkeypatch):
    write(tmp_path, {".git/HEAD": "", ".gitignore": "a.py\n"})
    rules = IgnoreRules()
    assert rules.is_ignored(tmp_path / "a.py")
    write(tmp_path, {".gitignore": "other.py\n"})
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + LOOK_AGAIN_S + 1)
    assert not rules.is_ignored(tmp_path / "a.py")


def test_documents_without_a_path_are_not_ignored():
    assert path_of_uri("untitled:Untitled-1") is None
    assert not IgnoreRules(globs=SECRETS).is_ignored_uri("untitled:.env")
    assert IgnoreRules(globs=SECRETS).is_ignored_uri("file:///project/%2Eenv")


@pytest.mark.parametrize(
    "uri",
    [
        "untitled:/project/.env",  # VS Code: a file that is still to be made
        "untitled:/project/%2Eenv",
        "git:/project/.env?%7B%22ref%22%3A%22HEAD%22%7D",
        "vscode-vfs://github/owner/project/.env",
        "vscode-notebook-cell:/project/.env#W0sZmlsZQ",
    ],
)
def test_a_name_counts_under_any_scheme(uri):
    assert IgnoreRules(globs=SECRETS).is_ignored_uri(uri)
    assert not IgnoreRules(globs=SECRETS).is_ignored_uri(uri.replace(".env", "main.py").replace("%2Eenv", "main.py"))
    assert not IgnoreRules(globs=SECRETS).is_ignored_uri("foo://[bar/.env")


async def test_a_root_without_workspace_folders_has_its_rules(engine, connect, tmp_path):
    write(tmp_path, {".unmaskignore": "sub/private.py\n", "sub/private.py": ""})
    async with connect(root=tmp_path) as editor:
        uri = (tmp_path / "sub/private.py").as_uri()
        editor.open("x = ", uri=uri)
        assert await editor.inline(0, 4, uri=uri, invoked=True) == []
        assert (await editor.execute("unmask.status"))["reasons"] == {"ignored": 1}
        assert engine.asked == []


async def test_an_ignored_file_gets_no_suggestion_and_the_status_says_so(engine, connect, tmp_path):
    write(tmp_path, {".git/HEAD": "", ".gitignore": "generated.py\n"})
    engine.completions = {"x = ": "1"}
    async with connect() as editor:
        for name in ("generated.py", ".env", "main.py"):
            editor.open("x = ", uri=(tmp_path / name).as_uri())
        seen = len(editor.received)
        assert await editor.inline(0, 4, uri=(tmp_path / "generated.py").as_uri()) == []
        status = await editor.wait_for_status("ignored", since=seen)
        assert status["kind"] == "Inactive" and "unmask.ignore" in status["message"]
        assert await editor.inline(0, 4, uri=(tmp_path / ".env").as_uri(), invoked=True) == []
        assert engine.asked == []
        assert (await editor.execute("unmask.status"))["reasons"] == {"ignored": 2}
        seen = len(editor.received)
        assert len(await editor.inline(0, 4, uri=(tmp_path / "main.py").as_uri())) == 1
        await editor.wait_for_status("ready", since=seen)


async def test_the_globs_can_be_set(engine, connect, tmp_path):
    engine.completions = {"x = ": "1"}
    async with connect({"ignore": {"globs": ["private/**"]}}) as editor:
        for name, count in (("private/a.py", 0), (".env", 1)):
            uri = (tmp_path / name).as_uri()
            write(tmp_path, {".git/HEAD": ""})
            editor.open("x = ", uri=uri)
            assert len(await editor.inline(0, 4, uri=uri)) == count
