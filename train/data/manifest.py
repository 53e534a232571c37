"""Manifests: which sources a corpus is made of, pinned and with their licences. TOML, one ``[[source]]`` each.

Corpora are never stored in the repository; a manifest is enough to collect the same texts again.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from diffusion_core.checkpoints.atomic import write_file
from diffusion_core.errors import ConfigError
from train.data.errors import CorpusError
from train.data.licences import PERMISSIVE, parse_expression


class SourceKind(StrEnum):
    """Where a source's files come from."""

    PACKAGE = "package"  # a Python package: installed in this environment, else its wheel, fetched by pip
    STDLIB = "stdlib"  # the standard library of the running Python
    ARCHIVE = "archive"  # an sdist or another archive of sources: a file
    REPOSITORY = "repository"  # a git repository with history
    FOLDER = "folder"  # files of one's own


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """One source.

    ``version`` is a package's version or a commit. ``url`` is where a repository, an archive or a folder lies.
    ``sha256`` is the archive's, for the other kinds that of all source files together (:func:`hash_files`), and empty
    for a repository, whose commit says it all. ``num_bytes`` counts the source files. ``subfolders`` limits what is
    read.
    """

    kind: SourceKind
    name: str
    version: str = ""
    url: str = ""
    licence: str = ""
    sha256: str = ""
    num_bytes: int = 0
    subfolders: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """``package==version`` or ``repository@commit``, as it stands in every example's origin."""
        mark = "@" if self.kind is SourceKind.REPOSITORY else "=="
        return f"{self.name}{mark}{self.version[:12] if mark == '@' else self.version}" if self.version else self.name

    @property
    def project(self) -> str:
        """What is split by: a package and its repository are one project, whatever the versions."""
        return re.sub(r"[-_.]+", "-", self.name.rstrip("/").rsplit("/", 1)[-1].lower().removesuffix(".git"))


def read_manifest(path: Path) -> tuple[SourceEntry, ...]:
    """The sources of a manifest, in its order.

    Raises:
        ConfigError: not readable, no TOML, an unknown field (the nearest is named), a licence that is not on the list,
            or a source that stands there twice.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"manifest {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"manifest {path} is no TOML: {error}") from None
    rows = content.get("source")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"manifest {path} lists no [[source]]")
    entries = tuple(_read_entry(path, number, row) for number, row in enumerate(rows, start=1))
    labels = [entry.label for entry in entries]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"manifest {path} lists {twice} twice")
    return entries


def _read_entry(path: Path, number: int, row: Any) -> SourceEntry:
    where = f"manifest {path}, source {number}"
    if not isinstance(row, dict):
        raise ConfigError(f"{where} is no table")
    fields = {field.name: field for field in dataclasses.fields(SourceEntry)}
    for name in row:
        if name not in fields:
            near = get_close_matches(name, list(fields), n=1, cutoff=0.0)
            raise ConfigError(f"{where}: field {name!r} is unknown; did you mean {near[0]!r}?")
    try:
        kind = SourceKind(row.get("kind", ""))
    except ValueError:
        known = ", ".join(kind.value for kind in SourceKind)
        raise ConfigError(f"{where}: kind {row.get('kind')!r} is unknown; known are {known}") from None
    values: dict[str, Any] = {"kind": kind}
    for name, value in row.items():
        wanted: type = {"num_bytes": int, "subfolders": list}.get(name, str)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ConfigError(f"{where}: {name} must be {wanted.__name__}, not {type(value).__name__}")
        if name != "kind":
            values[name] = tuple(str(item) for item in value) if isinstance(value, list) else value
    if not values.get("name"):
        raise ConfigError(f"{where} has no name")
    entry = SourceEntry(**values)
    require_permissive(entry.name, entry.licence, where)
    if kind in (SourceKind.ARCHIVE, SourceKind.REPOSITORY, SourceKind.FOLDER) and not entry.url:
        raise ConfigError(f"{where} ({entry.name}): a {kind.value} needs a url or path")
    return entry


def require_permissive(name: str, licence: str, where: str) -> None:
    """Raise unless the licence is on the list.

    Raises:
        ConfigError: missing or not permissive; names the source and its licence.
    """
    if not licence:
        raise ConfigError(f"{where}: {name} states no licence")
    if not any(all(part in PERMISSIVE for part in choice) for choice in parse_expression(licence)):
        raise ConfigError(
            f"{where}: {name} stands under {licence}, which is not on the list; allowed are "
            f"{', '.join(sorted(PERMISSIVE))}"
        )


def write_manifest(path: Path, entries: tuple[SourceEntry, ...], note: str = "") -> None:
    """Write a manifest, sorted by kind and name; :func:`read_manifest` gives the same entries back."""
    lines = [f"# {line}" for line in note.splitlines()]
    for entry in sorted(entries, key=lambda entry: (entry.kind.value, entry.name.lower(), entry.version)):
        lines += ["", "[[source]]", f'kind = "{entry.kind.value}"']
        for field in dataclasses.fields(SourceEntry):
            value = getattr(entry, field.name)
            if field.name == "kind" or value == field.default:
                continue
            lines.append(f"{field.name} = {_toml(value)}")
    write_file(path, ("\n".join(lines).lstrip("\n") + "\n").encode())


def _toml(value: str | int | tuple[str, ...]) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise CorpusError(f"{value!r} cannot stand in a manifest")
    return f'"{escaped}"'


def own_manifests() -> dict[str, Path]:
    """The manifests that come with the project, by name."""
    folder = Path(str(resources.files("train.data") / "manifests"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_manifest(name: str) -> Path:
    """The manifest at a path, or our own one of that name.

    Raises:
        ConfigError: neither; names the nearest of our own.
    """
    if name.endswith(".toml"):
        return Path(name)
    own = own_manifests()
    if name not in own:
        near = get_close_matches(name, list(own), n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"manifest {name!r} is unknown{hint} A path ends in .toml")
    return own[name]
