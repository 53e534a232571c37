"""`unmask data`, as a person calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from helpers.eval_sets import make_hole, write_set
from helpers.source_trees import GPL, make_module, make_repository, write_sdist, write_tree
from typer.testing import CliRunner

from diffusion_core.errors import UnmaskError
from train.data.commands import register
from train.data.manifest import read_manifest


def call(*arguments: object) -> tuple[int, str]:
    """Exit code and all that was printed; an error of ours as the real main prints it."""
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    if isinstance(result.exception, UnmaskError):
        return 1, f"{result.output}error: {result.exception}"
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("UNMASK_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "eval").mkdir()
    write_set(tmp_path / "eval" / "a.jsonl", [make_hole(1)])
    monkeypatch.setenv("UNMASK_EVAL_DATA", str(tmp_path / "eval"))
    write_tree(tmp_path / "mine", {"a.py": make_module("alpha", 6)})
    make_repository(tmp_path / "repo", {"b.py": make_module("beta", 6), "web/c.ts": "const x = 1;\n" * 30})
    write_sdist(tmp_path / "thing-1.0.tar.gz", "thing", {"thing/d.py": make_module("delta", 6)})
    write_sdist(tmp_path / "bad-1.0.tar.gz", "bad", {"e.py": make_module("e")}, licence=GPL, expression="GPL-3.0-only")
    return tmp_path


def test_from_sources_to_a_corpus(workspace: Path) -> None:
    manifest, out = workspace / "m.toml", workspace / "corpus"
    code, said = call("add", workspace / "repo", workspace / "thing-1.0.tar.gz", "pluggy", "--manifest", manifest)
    assert code == 0, said
    assert "added: repo@" in said and "added: pluggy==" in said
    code, said = call("add", workspace / "mine", "--licence", "ISC", "--manifest", manifest)
    assert code == 0, said
    assert {entry.name for entry in read_manifest(manifest)} == {"repo", "thing-1.0", "pluggy", "mine"}
    code, said = call("collect", manifest, "--out", workspace / "sources")
    assert code == 0 and "4 of 4 sources" in said, said
    code, said = call("build", manifest, "--out", out, "--sources", workspace / "sources", "--set", "seed=2")
    assert code == 0, said
    for word in ("by language", "by kind", "by licence", "typescript", "infill_node", "ISC", "left out"):
        assert word in said, said
    assert call("show", out)[1] in said.replace("\r", "")


def test_a_refused_licence_does_not_stop_the_others(workspace: Path) -> None:
    manifest = workspace / "m.toml"
    code, said = call("add", workspace / "bad-1.0.tar.gz", workspace / "thing-1.0.tar.gz", "--manifest", manifest)
    assert code == 1 and "not added: bad-1.0: licence GPL" in said and "added: thing-1.0" in said
    assert [entry.name for entry in read_manifest(manifest)] == ["thing-1.0"]
    code, said = call("add", workspace / "mine", "--manifest", manifest)
    assert code == 1 and "states no licence" in said


def test_adding_again_replaces_and_keeps_the_note(workspace: Path) -> None:
    manifest = workspace / "m.toml"
    call("add", workspace / "mine", "--licence", "MIT", "--manifest", manifest)
    manifest.write_text("# Ours\n\n" + manifest.read_text())
    (workspace / "mine" / "a.py").write_text(make_module("changed", 6))
    before = read_manifest(manifest)
    assert call("add", workspace / "mine", "--licence", "MIT", "--manifest", manifest)[0] == 0
    after = read_manifest(manifest)
    assert len(after) == 1 and after[0].sha256 != before[0].sha256
    assert manifest.read_text().startswith("# Ours\n")


def test_a_source_that_changed_stops_the_build_unless_told_to_skip(workspace: Path) -> None:
    manifest = workspace / "m.toml"
    call("add", workspace / "repo", workspace / "thing-1.0.tar.gz", "--manifest", manifest)
    call("add", workspace / "mine", "--licence", "MIT", "--manifest", manifest)
    (workspace / "mine" / "a.py").write_text(make_module("changed", 6))
    code, said = call("collect", manifest, "--out", workspace / "sources")
    assert code == 1 and "mine: mine: sha256 is" in said and "2 of 3 sources" in said
    arguments = ("build", manifest, "--out", workspace / "corpus", "--sources", workspace / "sources")
    code, said = call(*arguments)
    assert code == 1 and "1 of 3 sources could not be collected" in said
    code, said = call(*arguments, "--skip-failed")
    assert code == 0, said


def test_bad_usage_is_explained(workspace: Path) -> None:
    (workspace / "full").mkdir()
    (workspace / "full" / "letter.txt").write_text("dear")
    manifest = workspace / "m.toml"
    call("add", workspace / "repo", "--manifest", manifest)
    for arguments, message in (
        (("build", "pithon", "--out", workspace / "c"), "corpus recipe 'pithon' is unknown; did you mean 'python'"),
        (("build", "python", manifest, "--out", workspace / "c"), "name one recipe, or manifests only"),
        (("build", workspace / "none.toml", "--out", workspace / "c"), "cannot be read"),
        (("build", manifest, "--out", workspace / "full"), "holds other files"),
        (("build", manifest, "--out", workspace / "c", "--set", "sed=1"), "did you mean 'seed'"),
        (("build", manifest, "--out", workspace / "c"), "split by project, and there is only 'repo'"),
        (("build", manifest, "--out", workspace / "c", "--eval-data", workspace / "mine"), "no evaluation files"),
        (("show", workspace / "mine"), "is no corpus"),
    ):
        code, said = call(*arguments)
        assert code == 1 and message in said, (arguments, said)
    assert (workspace / "full" / "letter.txt").exists()
