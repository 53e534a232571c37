"""Manifests of sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_core.errors import ConfigError
from train.data.licences import PERMISSIVE, parse_expression
from train.data.manifest import (
    SourceEntry,
    SourceKind,
    find_manifest,
    own_manifests,
    read_manifest,
    write_manifest,
)
from train.data.requested import parse_request


def test_what_is_written_is_read_back_in_order_of_kind_and_name(tmp_path: Path) -> None:
    entries = (
        SourceEntry(
            kind=SourceKind.REPOSITORY, name="a/b", version="c0ffee", url="https://example.org/a/b", licence="MIT"
        ),
        SourceEntry(
            kind=SourceKind.PACKAGE, name="zoo", version="1.0", licence="MIT AND ISC", sha256="ab", num_bytes=7
        ),
        SourceEntry(kind=SourceKind.FOLDER, name='odd "name"', url="C:\\x", licence="MIT", subfolders=("src", "lib")),
    )
    path = tmp_path / "m.toml"
    write_manifest(path, entries, "A note\nof two lines")
    assert path.read_text().startswith("# A note\n# of two lines\n")
    assert set(read_manifest(path)) == set(entries)
    assert [entry.kind.value for entry in read_manifest(path)] == ["folder", "package", "repository"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[source]]\nkind = "package"\nname = "a"\nlicense = "MIT"', "'license' is unknown; did you mean 'licence'"),
        ('[[source]]\nkind = "package"\nname = "a"\nlicence = "GPL-3.0-only"', "a stands under GPL-3.0-only"),
        ('[[source]]\nkind = "package"\nname = "a"', "a states no licence"),
        ('[[source]]\nkind = "pakage"\nname = "a"', "kind 'pakage' is unknown; known are package"),
        ('[[source]]\nkind = "package"\nlicence = "MIT"', "has no name"),
        ('[[source]]\nkind = "package"\nname = 3\nlicence = "MIT"', "name must be str, not int"),
        ('[[source]]\nkind = "repository"\nname = "a"\nlicence = "MIT"', "needs a url or path"),
        ('[[source]]\nkind = "package"\nname = "a"\nlicence = "MIT"\n' * 2, "lists a twice"),
        ("", "lists no"),
        ("[[source", "is no TOML"),
    ],
)
def test_a_bad_manifest_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_manifest(path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        read_manifest(find_manifest(str(tmp_path / "none.toml")))
    with pytest.raises(ConfigError, match="'pyhton' is unknown; did you mean 'python'"):
        find_manifest("pyhton")


@pytest.mark.parametrize("name", sorted(own_manifests()))
def test_our_own_manifests_are_pinned_and_permissive(name: str) -> None:
    for entry in read_manifest(own_manifests()[name]):
        assert entry.version and entry.num_bytes > 0, entry.name
        assert entry.sha256 or entry.kind is SourceKind.REPOSITORY, entry.name
        assert set(parse_expression(entry.licence)[0]) <= PERMISSIVE, entry.name


def test_a_package_and_its_repository_are_one_project() -> None:
    package = SourceEntry(kind=SourceKind.PACKAGE, name="Ruamel_Yaml", version="1")
    repository = SourceEntry(kind=SourceKind.REPOSITORY, name="someone/ruamel.yaml.git", version="2")
    assert package.project == repository.project


@pytest.mark.parametrize(
    ("text", "kind", "name", "version"),
    [
        ("requests", SourceKind.PACKAGE, "requests", ""),
        ("requests==2.0", SourceKind.PACKAGE, "requests", "2.0"),
        ("stdlib", SourceKind.STDLIB, "python", ""),
        ("https://example.org/owner/name.git", SourceKind.REPOSITORY, "owner/name", ""),
        ("git@example.org:owner/name", SourceKind.REPOSITORY, "owner/name", ""),
    ],
)
def test_sources_are_named_the_usual_way(text: str, kind: SourceKind, name: str, version: str) -> None:
    entry = parse_request(text)
    assert (entry.kind, entry.name, entry.version) == (kind, name, version)


def test_a_folder_needs_a_licence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="states no licence"):
        parse_request(str(tmp_path))
    with pytest.raises(ConfigError, match="stands under Proprietary"):
        parse_request(str(tmp_path), "Proprietary")
    assert parse_request(str(tmp_path), "MIT").kind is SourceKind.FOLDER


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a package"):
        parse_request("--index-url=x")
