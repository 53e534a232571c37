"""Reading sources of every kind, and what is wrong with broken ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.source_trees import GPL, make_module, make_repository, write_sdist, write_tree, write_wheel

from train.data.errors import CorpusError, LicenceRefused
from train.data.manifest import SourceEntry, SourceKind
from train.data.packages import read_package
from train.data.source_files import hash_files, is_source_path, read_source
from train.data.sources import collect_all, collect_source, collected_path, read_collected, write_collected


def folder_entry(path: Path, name: str = "mine") -> SourceEntry:
    return SourceEntry(kind=SourceKind.FOLDER, name=name, url=str(path), licence="MIT")


def test_a_folder_is_read_stored_and_read_back(tmp_path: Path) -> None:
    files = {"a.py": make_module("alpha"), "sub/b.py": make_module("beta"), "notes.txt": "no source"}
    folder = write_tree(tmp_path / "src", {**files, ".hidden/c.py": make_module("gamma"), "short.py": "x = 1\n"})
    source = collect_source(folder_entry(folder), tmp_path / "clones")
    assert [file.path for file in source.files] == ["a.py", "sub/b.py"]
    assert source.files[0].text == files["a.py"]
    assert source.left_out == {"too short": 1}
    assert read_collected(write_collected(tmp_path / "out", source)) == source


def test_a_folder_without_source_files_is_an_error(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "src", {"readme.txt": "nothing"})
    with pytest.raises(CorpusError, match="has no source files that can be read"):
        collect_source(folder_entry(folder), tmp_path)
    with pytest.raises(CorpusError, match="there is no folder"):
        collect_source(folder_entry(tmp_path / "none"), tmp_path)


def test_files_that_teach_nothing_are_left_out(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "src", {"x.py": "a = 1\n"})
    with pytest.raises(CorpusError, match=r"none of its 1 source files is fit to learn from: .'too short': 1"):
        collect_source(folder_entry(folder), tmp_path)


def test_a_changed_source_is_noticed(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "src", {"a.py": make_module("alpha")})
    entry = collect_source(folder_entry(folder), tmp_path).entry
    assert entry.sha256 == hash_files([("a.py", make_module("alpha").encode())])
    collect_source(entry, tmp_path)
    (folder / "a.py").write_text(make_module("beta"))
    with pytest.raises(CorpusError, match="the manifest pins"):
        collect_source(entry, tmp_path)


@pytest.mark.parametrize("write", [write_sdist, None])
def test_an_archive_is_read_without_being_unpacked(tmp_path: Path, write: object) -> None:
    files = {"thing/core.py": make_module("core"), "vendor/copy.py": make_module("copy")}
    if write is None:
        path = write_wheel(tmp_path, "thing", files)
    else:
        path = write_sdist(tmp_path / "thing-1.0.tar.gz", "thing", files)
    source = collect_source(SourceEntry(kind=SourceKind.ARCHIVE, name="thing", url=str(path)), tmp_path)
    assert [file.path for file in source.files] == ["thing/core.py"]  # no vendored copy, no link, nothing outside
    assert source.entry.licence == "MIT"
    assert sorted(child.name for child in tmp_path.iterdir()) == [path.name]


def test_an_archive_under_another_licence_is_refused(tmp_path: Path) -> None:
    path = write_sdist(
        tmp_path / "thing-1.0.tar.gz", "thing", {"a.py": make_module("a")}, licence=GPL, expression="GPL-3.0-only"
    )
    with pytest.raises(LicenceRefused, match="thing: licence GPL"):
        collect_source(SourceEntry(kind=SourceKind.ARCHIVE, name="thing", url=str(path)), tmp_path)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    path = write_sdist(tmp_path / "thing-1.0.tar.gz", "thing", {"a.py": make_module("a", 60)})
    entry = SourceEntry(kind=SourceKind.ARCHIVE, name="thing", url=str(path))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CorpusError, match=r"thing-1\.0\.tar\.gz"):
        collect_source(entry, tmp_path)
    path.write_bytes(b"no archive at all")
    with pytest.raises(CorpusError, match="neither a tar archive nor a zip file"):
        collect_source(entry, tmp_path)
    with pytest.raises(CorpusError, match="there is no archive"):
        collect_source(replace(entry, url=str(tmp_path / "none.zip")), tmp_path)


def test_an_installed_package_is_read_where_it_is() -> None:
    package = read_package("pluggy", allow_fetch=False)
    assert "pluggy/_hooks.py" in package.source.files
    assert collect_source(SourceEntry(kind=SourceKind.PACKAGE, name="pluggy"), Path()).entry.licence == "MIT"
    with pytest.raises(CorpusError, match="is not installed here"):
        read_package("pluggy", "0.0.1", allow_fetch=False)


def test_a_package_that_is_not_installed_comes_from_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    write_wheel(index, "unmask_test_thing", {"unmask_test_thing/core.py": make_module("core")})
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    source = collect_source(SourceEntry(kind=SourceKind.PACKAGE, name="unmask_test_thing"), tmp_path)
    assert source.entry.version == "1.0"
    assert [file.path for file in source.files] == ["unmask_test_thing/core.py"]
    with pytest.raises(CorpusError, match=r"unmask_test_other cannot be fetched as a wheel .*No matching distribution"):
        read_package("unmask_test_other")


def test_a_repository_is_read_at_its_commit(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repo", {"pkg/a.py": make_module("a"), "pkg/b.py": make_module("b")})
    entry = SourceEntry(kind=SourceKind.REPOSITORY, name="someone/repo", url=str(repository))
    source = collect_source(entry, tmp_path / "clones")
    assert [file.path for file in source.files] == ["pkg/a.py", "pkg/b.py"]
    assert len(source.entry.version) == 40 and source.entry.label == f"someone/repo@{source.entry.version[:12]}"
    assert source.git_folder == repository / ".git"
    with pytest.raises(CorpusError, match="git rev-parse failed"):
        collect_source(replace(entry, version="0" * 40), tmp_path)


def test_a_remote_repository_is_cloned_once(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repo", {"a.py": make_module("a")})
    entry = SourceEntry(kind=SourceKind.REPOSITORY, name="someone/repo", url=f"file://{repository}")
    first = collect_source(entry, tmp_path / "clones")
    assert first.git_folder == tmp_path / "clones" / "someone" / "repo.git"
    repository.rename(tmp_path / "gone")
    assert collect_source(entry, tmp_path / "clones").files == first.files


def test_what_is_no_repository_is_named(tmp_path: Path) -> None:
    entry = SourceEntry(kind=SourceKind.REPOSITORY, name="someone/repo", url=str(tmp_path))
    with pytest.raises(CorpusError, match="is no git repository"):
        collect_source(entry, tmp_path / "clones")


def test_collecting_goes_on_after_a_failure_and_keeps_what_is_there(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "src", {"a.py": make_module("alpha")})
    good, bad = folder_entry(folder), folder_entry(tmp_path / "none", "bad")
    results = [result for _, result in collect_all([bad, good], tmp_path / "out", tmp_path)]
    assert isinstance(results[0], CorpusError)
    (folder / "a.py").write_text(make_module("changed"))
    assert [result for _, result in collect_all([good], tmp_path / "out", tmp_path)] == results[1:]


def test_a_damaged_collected_file_is_named(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "src", {"a.py": make_module("alpha")})
    path = write_collected(tmp_path, collect_source(folder_entry(folder), tmp_path))
    assert path == collected_path(tmp_path, folder_entry(folder))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match="is damaged"):
        read_collected(path)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("a/b.py", True), ("a/b.ts", True), ("a/_vendor/b.py", False), ("node_modules/x/y.js", False), ("a.pyi", False),
        ("lib.min.js", False), ("README.md", False), ("vendor.py", True),
    ],
)  # fmt: skip
def test_source_paths(path: str, wanted: bool) -> None:
    assert is_source_path(path) == wanted


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"x = 1\n", "too short"), (b"\xff\xfe" * 200, "not UTF-8"), (b"x = 1\n" * 50_000, "too large"),
        (b"a" * 600, "long lines"), (b"1, 2, 3, 4,\n" * 100, "mostly data"), (b"ab = 1\0\n" * 100, "binary"),
        (b"# Generated by protoc. DO NOT EDIT\n" + b"value = something\n" * 40, "generated"),
        (b"# SPDX-License-Identifier: GPL-2.0-only\n" + b"value = something\n" * 40, "licence in the file's header"),
    ],
)  # fmt: skip
def test_files_are_left_out_with_a_reason(raw: bytes, reason: str) -> None:
    assert read_source("a.py", raw) == (None, reason)


def test_line_ends_and_byte_order_marks_are_normalised() -> None:
    file, _ = read_source("a.py", b"\xef\xbb\xbf" + b"value = something\r\n" * 40)
    assert file is not None and file.text == "value = something\n" * 40
