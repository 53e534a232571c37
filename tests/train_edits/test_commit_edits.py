"""Edits from the history of scripted repositories."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.scripted_repositories import ScriptedCommit, git, make_repository

from train.data.commit_edits import CommitEditConfig, collect
from train.data.commit_messages import clean_message
from train.data.errors import CorpusError
from train.data.examples import ExampleKind
from train.data.git_history import BlobReader, read_commits

MODULE = '''"""Sums of things, for the reports that go to the printing office."""

import math


def total(values):
    """Add up all values of a report."""
    result = 0
    for value in values:
        result += value
    return result


def mean(values):
    """The average of the values."""
    return total(values) / len(values)


class Report:
    """Values with a name."""

    def __init__(self, name, values):
        self.name = name
        self.values = values
'''
GUARDED = MODULE.replace(
    "    return total(values)", "    if not values:\n        return math.nan\n    return total(values)"
)
FLOAT = GUARDED.replace("    result = 0\n", "    result = 0.0\n")
SCRIPT = "".join(f"export function step{n}(a) {{\n  return a + {n};\n}}\n\n" for n in range(12))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    moved = FLOAT.replace("class Report:", "class Table:")
    return make_repository(
        tmp_path_factory.mktemp("history"),
        [
            ScriptedCommit(
                message="Initial commit", files={"sums.py": MODULE, "README.md": "Sums\n", "step.js": SCRIPT}
            ),
            ScriptedCommit(
                message="Return nan as the mean of no values (#12)\n\n"
                "The mean of an empty list raised ZeroDivisionError for the user.\n\n"
                "Fixes #11\nSigned-off-by: Ada <ada@example.org>\n",
                files={
                    "sums.py": GUARDED,
                    "tests/test_sums.py": "def test_nothing():\n    assert True\n" * 9,
                    "README.md": "Sums!\n",
                },
            ),
            ScriptedCommit(message="wip", files={"sums.py": GUARDED + "\n\nX = 1\n"}),
            ScriptedCommit(message="Revert the last change of sums", files={"sums.py": GUARDED}),
            ScriptedCommit(
                message="Start the sum from a float in total()", files={"sums.py": FLOAT}, author="dependabot[bot]"
            ),
            ScriptedCommit(
                message="fix: added explicit return value to step3",
                files={"step.js": SCRIPT.replace("return a + 3", "return Number(a) + 3")},
            ),
            ScriptedCommit(message="Rename the class Report to Table", files={"sums.py": moved}),
            ScriptedCommit(
                message="Split the sums into a second module",
                files={"sums.py": moved + "\n\nY = 2\n", "new.py": MODULE},
            ),
            ScriptedCommit(message="Use a different module layout for sums", files={"sums.py": None}),
        ],
    )


def test_small_edits_with_a_telling_message_are_found_newest_first(repository: Path) -> None:
    found = list(collect(repository, licence="MIT"))
    assert [example.instruction for example in found] == [
        "Rename the class Report to Table",
        "Add explicit return value to step3",
        "Return nan as the mean of no values. The mean of an empty list raised ZeroDivisionError for the user.",
    ]
    guard = found[-1]
    assert guard.kind is ExampleKind.EDIT_COMMIT
    assert (guard.before, guard.after, guard.rewrite) == (MODULE, GUARDED, "")
    assert "math.nan" in guard.edited
    assert "math.nan" not in guard.selection
    assert guard.origin.path == "sums.py"
    assert (guard.origin.licence, guard.origin.language) == ("MIT", "python")
    assert guard.origin.source.startswith("project@")
    assert len(guard.origin.source) == len("project@") + 40


def test_the_selection_is_whole_lines_around_the_change(repository: Path) -> None:
    for example in collect(repository):
        assert example.start == 0 or example.before[example.start - 1] == "\n"
        assert example.selection.endswith("\n")
        assert example.selection != example.edited


def test_history_is_read_the_same_way_each_time_and_stops_at_the_limit(repository: Path) -> None:
    assert list(collect(repository)) == list(collect(repository))
    assert list(collect(repository, limit=2)) == list(collect(repository))[:2]


def test_size_limits_hold(repository: Path) -> None:
    assert not list(collect(repository, config=CommitEditConfig(max_selection_characters=30)))
    assert not list(collect(repository, config=CommitEditConfig(max_changed_lines=0)))


def test_commits_carry_their_changes(repository: Path) -> None:
    commits = list(read_commits(repository))
    assert len(commits) == 9
    assert commits[0].message.strip() == "Use a different module layout for sums"
    assert [(change.path, change.status) for change in commits[0].changes] == [("sums.py", "D")]
    assert {change.path for change in commits[-2].changes} == {"sums.py", "tests/test_sums.py", "README.md"}


def test_contents_are_read_by_hash_and_within_a_size(repository: Path) -> None:
    change = next(change for change in list(read_commits(repository))[-2].changes if change.path == "sums.py")
    with BlobReader(repository) as blobs:
        assert blobs.read("0" * 39 + "1", 10_000) is None
        assert blobs.read(change.new_blob, 10) is None
        assert blobs.read(change.old_blob, 10_000) == MODULE.encode()


def test_an_object_that_the_repository_lacks_is_passed_over(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.git"
    shutil.copytree(repository, copy)
    pack = next((copy / "objects" / "pack").glob("*.pack"), None)
    if pack is not None:
        loose = tmp_path / "all.pack"
        shutil.move(pack, loose)
        for index in (copy / "objects" / "pack").iterdir():
            index.unlink()
        with loose.open("rb") as packed:
            subprocess.run(["git", f"--git-dir={copy}", "unpack-objects", "-q"], stdin=packed, check=True)
    blob = git(copy, "rev-parse", "main~7:sums.py")
    (copy / "objects" / blob[:2] / blob[2:]).unlink()
    assert len(list(collect(copy))) == 2


def test_merges_do_not_count(tmp_path: Path) -> None:
    bare = make_repository(tmp_path, [ScriptedCommit(message="first", files={"sums.py": MODULE})])
    work = tmp_path / "work"
    who = {
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@b.c",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@b.c",
    }
    git(work, "checkout", "-q", "-b", "side")
    (work / "sums.py").write_text(GUARDED)
    git(work, "commit", "-q", "-a", "-m", "Return nan as the mean of nothing", environment=who)
    git(work, "checkout", "-q", "main")
    git(work, "merge", "-q", "--no-ff", "side", "-m", "Add the handling of empty value lists", environment=who)
    git(work, "push", "-q", str(bare), "main")
    assert [example.instruction for example in collect(bare)] == ["Return nan as the mean of nothing"]


def test_what_is_no_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"git log failed for .*nothing-here"):
        list(collect(tmp_path / "nothing-here"))


def test_a_missing_revision_is_named(repository: Path) -> None:
    with pytest.raises(CorpusError, match="git log failed"):
        list(collect(repository, revision="no-such-branch"))


def test_the_repositorys_own_configuration_runs_nothing(repository: Path, tmp_path: Path) -> None:
    copy, witness = tmp_path / "copy.git", tmp_path / "ran"
    shutil.copytree(repository, copy)
    for key in ("diff.external", "core.fsmonitor", "core.pager", "gpg.program"):
        git(copy, "config", key, f"touch {witness}")
    git(copy, "config", "log.showSignature", "true")
    assert len(list(collect(copy))) == 3
    assert not witness.exists()


KEPT = [
    ("Fix crash on empty input", "Fix crash on empty input"),
    ("fixed crash on empty input (#123)", "Fix crash on empty input"),
    ("feat(parser)!: adds support for nested lists", "Add support for nested lists"),
    ("bpo-1234: Raise ValueError for negative sizes. (GH-99)", "Raise ValueError for negative sizes"),
    ("Fixed #3021 -- Allowed None as a default value.", "Allow None as a default value"),
    ("[core] Handling nested lists in a stricter way", "Handle nested lists in a stricter way"),
    ("Don't suggest names of hidden commands", "Don't suggest names of hidden commands"),
    ("do not close streams that others own", "Do not close streams that others own"),
    ("properly skip empty parts of options", "properly skip empty parts of options"),
    ("Close the response, and add a test", "Close the response"),
    (
        "Use monotonic clock for timeouts\n\nThe wall clock can jump back when the time is set. It did.\n",
        "Use monotonic clock for timeouts. The wall clock can jump back when the time is set.",
    ),
    ("Use monotonic clock for timeouts\n\n- one\n- two\n", "Use monotonic clock for timeouts"),
    (
        "Use monotonic clock for timeouts\n\nI think that this is a good idea for all of us.\n",
        "Use monotonic clock for timeouts",
    ),
]
DROPPED = [
    "Don't typo the readme again",
    "Better error texts for users",
    "Merge branch 'main' into topic",
    'Revert "Fix crash on empty input"',
    "Bump version to 1.2.3",
    "wip",
    "fix bug",
    "Fix #123",
    "Update README with new badges",
    "Address review comments on parser",
    "Release 3.0",
    "v2.1.0",
    "some more changes to the code",
    "typo in docstring fixed again",
    "Corrige l'erreur quand la liste est vide",
    "исправить ошибку при пустом вводе",
    "",
    "#42",
    "Fix typos in the tokenizer docs",
    "update dependencies",
    "https://example.org/issue/1 fixed here now",
    "Parser now handles lists",
    "Handling of nested lists made stricter",
]


@pytest.mark.parametrize(("message", "instruction"), KEPT, ids=[case[0][:30] for case in KEPT])
def test_messages_become_instructions(message: str, instruction: str) -> None:
    assert clean_message(message) == instruction


@pytest.mark.parametrize("message", DROPPED, ids=[f"{n}-{text[:20]}" for n, text in enumerate(DROPPED)])
def test_messages_without_a_task_are_dropped(message: str) -> None:
    assert clean_message(message) is None


def test_bots_are_dropped() -> None:
    assert clean_message("Fix crash on empty input", author="renovate[bot]") is None
    assert clean_message("Fix crash on empty input", email="49699333+dependabot[bot]@users.noreply.github.com") is None
    assert clean_message("Fix crash on empty input", author="Abbott", email="abbott@example.org") is not None
