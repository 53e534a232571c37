"""What a person names as a source: package, repository, archive or folder."""

from __future__ import annotations

import re
from pathlib import Path

from diffusion_core.errors import ConfigError
from train.data.manifest import SourceEntry, SourceKind, require_permissive
from train.data.repositories import find_git_folder

_PACKAGE = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==([A-Za-z0-9.+!_-]+))?")


def parse_request(text: str, licence: str = "") -> SourceEntry:
    """The entry that a source's name stands for, still without version, hash and licence (a folder needs ``licence``).

    Raises:
        ConfigError: neither a package's name nor something that exists; or a folder without a licence.
    """
    if text == "stdlib":
        return SourceEntry(kind=SourceKind.STDLIB, name="python")
    if "://" in text or text.startswith("git@"):
        parts = re.split(r"[/:]", text.rstrip("/").removesuffix(".git"))
        if len(parts) < 2 or not all(parts[-2:]):
            raise ConfigError(f"{text} names no repository: OWNER/NAME expected at its end")
        return SourceEntry(kind=SourceKind.REPOSITORY, name="/".join(parts[-2:]), url=text)
    path = Path(text).expanduser()
    if path.is_dir() and find_git_folder(path) is not None:
        return SourceEntry(kind=SourceKind.REPOSITORY, name=_folder_name(path), url=str(path.resolve()))
    if path.is_dir():
        require_permissive(text, licence, "--licence")
        return SourceEntry(kind=SourceKind.FOLDER, name=_folder_name(path), url=str(path.resolve()), licence=licence)
    if path.is_file():
        name = re.sub(r"\.(tar\.\w+|tgz|zip|whl)$", "", path.name)
        return SourceEntry(kind=SourceKind.ARCHIVE, name=name, url=str(path.resolve()))
    match = _PACKAGE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is neither a package (NAME or NAME==VERSION) nor a repository, archive or folder")
    return SourceEntry(kind=SourceKind.PACKAGE, name=match.group(1), version=match.group(2) or "")


def _folder_name(path: Path) -> str:
    return path.resolve().name.removesuffix(".git")
