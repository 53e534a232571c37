"""Python packages as sources: read out of this environment where installed, else out of the wheel that pip fetches.

A wheel is only read, never installed or executed. Source distributions are not fetched: pip runs a project's own
build code to learn its name. One that lies on the disk is an archive (``archives``).
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from importlib import metadata
from pathlib import Path, PurePosixPath

from train.data.archives import RawSource, claim_from_metadata, read_archive
from train.data.errors import CorpusError
from train.data.licences import LICENCE_FILE, LicenceClaim
from train.data.source_files import MAX_READ_BYTES, is_source_path

PIP_TIMEOUT_S = 600


@dataclass(frozen=True)
class PackageFiles:
    """A package's version and what it holds."""

    version: str
    source: RawSource


def read_package(name: str, version: str = "", *, allow_fetch: bool = True) -> PackageFiles:
    """The source files of a package; ``version`` empty takes the installed one, else the newest.

    Raises:
        CorpusError: not installed in that version and not to be fetched; says what pip said.
    """
    installed = _find_installed(name, version)
    if installed is not None:
        return PackageFiles(installed.version, _read_installed(installed))
    wanted = f"{name}=={version}" if version else name
    if not allow_fetch:
        raise CorpusError(f"{wanted} is not installed here, and fetching is switched off")
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_wheel(wanted, Path(folder))
        return PackageFiles(path.name.split("-")[1], read_archive(path))


def _find_installed(name: str, version: str) -> metadata.Distribution | None:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return found if version in ("", found.version) and found.files else None


def _read_installed(distribution: metadata.Distribution) -> RawSource:
    files: dict[str, bytes] = {}
    texts: list[str] = []
    for entry in distribution.files or ():
        path = entry.as_posix()
        if path.startswith(("../", "/")) or ".." in entry.parts:
            continue  # scripts, data of the system
        if is_source_path(path):
            place = Path(str(distribution.locate_file(entry)))
            if _is_readable(place):
                files[path] = place.read_bytes()
        elif entry.parts[0].endswith(".dist-info") and LICENCE_FILE.fullmatch(entry.name):
            texts.append(_read_text(Path(str(distribution.locate_file(entry)))))
    return RawSource(files, claim_from_metadata(_as_message(distribution), texts))


def _is_readable(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= MAX_READ_BYTES


def _as_message(distribution: metadata.Distribution) -> Message:
    message: Mapping[str, str] | Message = distribution.metadata  # type: ignore[assignment]
    assert isinstance(message, Message)
    return message


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def fetch_wheel(requirement: str, folder: Path) -> Path:
    """The wheel of one requirement, fetched by pip from the index that pip is set up for; nothing of it is executed.

    Raises:
        CorpusError: pip failed; the message ends with what it said.
    """
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
        "--disable-pip-version-check", "--dest", str(folder), "--", requirement,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise CorpusError(f"{requirement}: pip did not finish within {PIP_TIMEOUT_S} s") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise CorpusError(
            f"{requirement} cannot be fetched as a wheel ({said}). A source distribution on the disk can be added "
            "by its path"
        )
    return wheels[0]


# Parts of the standard library's folder that are no library: tests, tools, and what pip installs there.
_STDLIB_LEFT_OUT = frozenset({"site-packages", "test", "tests", "idlelib", "idle_test", "lib2to3", "ensurepip",
                              "turtledemo", "pydoc_data", "__pycache__", "config"})  # fmt: skip


def read_stdlib() -> PackageFiles:
    """The standard library of the running Python.

    Raises:
        CorpusError: its licence file is not there.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*.py")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        is_library = not any(part in _STDLIB_LEFT_OUT for part in relative.parts[:-1])
        if is_library and is_source_path(str(relative)) and _is_readable(path):
            files[str(relative)] = path.read_bytes()
    licence = next((path for path in (folder / "LICENSE.txt", folder / "LICENSE") if path.is_file()), None)
    if licence is None:
        raise CorpusError(f"the standard library in {folder} has no licence file beside it")
    version = ".".join(map(str, sys.version_info[:3]))
    claim = LicenceClaim(expression="PSF-2.0", files=(_read_text(licence),))
    return PackageFiles(version, RawSource(files, claim))
