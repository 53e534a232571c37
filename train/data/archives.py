"""Archives of sources (sdists, wheels, zip files, npm tarballs): read in memory, never unpacked, never executed."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from train.data.errors import CorpusError
from train.data.licences import LICENCE_FILE, LicenceClaim
from train.data.source_files import MAX_READ_BYTES, is_source_path

# A damaged or malicious archive could grow without bound in memory.
MAX_TOTAL_BYTES = 512 * 1024 * 1024
_MAX_META_BYTES = 1024 * 1024


@dataclass(frozen=True)
class RawSource:
    """Source files by path, as bytes, and what the source says about its licence."""

    files: Mapping[str, bytes] = field(repr=False)
    claim: LicenceClaim = field(repr=False)


def read_archive(path: Path) -> RawSource:
    """The source files of an archive, without the folder that most archives begin with.

    Raises:
        CorpusError: missing, damaged, of an unknown kind, or too large.
    """
    files: dict[str, bytes] = {}
    licences: list[str] = []
    headers = Message()
    package_json = ""
    total = 0
    for name, raw in _members(path):
        total += len(raw)
        if total > MAX_TOTAL_BYTES:
            raise CorpusError(f"{path} holds more than {MAX_TOTAL_BYTES // 1024**2} MiB of sources")
        pure = PurePosixPath(name)
        if is_source_path(name):
            files[name] = raw
        elif _is_main_licence(pure):
            licences.append(raw.decode("utf-8", "replace"))
        elif pure.name in ("METADATA", "PKG-INFO") and (not headers or len(pure.parts) <= 2):
            headers = HeaderParser().parsestr(raw.decode("utf-8", "replace"))
        elif str(pure) == "package.json":
            package_json = raw.decode("utf-8", "replace")
    claim = claim_from_package_json(package_json, licences) if package_json else claim_from_metadata(headers, licences)
    return RawSource(files, claim)


def _is_main_licence(pure: PurePosixPath) -> bool:
    """A licence file of the source itself: at the top or in a wheel's metadata, not one of a vendored copy."""
    is_top = len(pure.parts) == 1 or pure.parts[0].endswith(".dist-info")
    return is_top and LICENCE_FILE.fullmatch(pure.name) is not None


def _is_wanted(name: str, size: int) -> bool:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        return False
    if is_source_path(name):
        return size <= MAX_READ_BYTES and not pure.parts[0].endswith(".data")
    is_meta = pure.name in ("METADATA", "PKG-INFO", "package.json") or LICENCE_FILE.fullmatch(pure.name) is not None
    return is_meta and size <= _MAX_META_BYTES


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Wanted regular files of an archive; links and devices are passed over."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if not info.is_dir() and _is_wanted(info.filename, info.file_size):
                        yield info.filename, archive.read(info)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                for member in tar:
                    inner = member.name.partition("/")[2]  # name-1.0/, package/
                    opened = tar.extractfile(member) if member.isreg() and _is_wanted(inner, member.size) else None
                    if opened is not None:
                        yield inner, opened.read()
        else:
            raise CorpusError(f"{path} is neither a tar archive nor a zip file")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise CorpusError(f"{path} cannot be read as an archive: {error}") from None


def claim_from_metadata(headers: Message, licence_texts: Sequence[str]) -> LicenceClaim:
    """What a Python package's metadata say."""
    return LicenceClaim(
        expression=str(headers.get("License-Expression") or ""),
        free_text=str(headers.get("License") or ""),
        classifiers=tuple(str(entry) for entry in headers.get_all("Classifier") or ()),
        files=tuple(licence_texts),
    )


def claim_from_package_json(text: str, licence_texts: Sequence[str]) -> LicenceClaim:
    """What an npm package says.

    Raises:
        CorpusError: its package.json is no JSON object.
    """
    try:
        stated = json.loads(text).get("license", "")
    except (ValueError, AttributeError) as error:
        raise CorpusError(f"package.json cannot be read: {error}") from None
    return LicenceClaim(expression=stated if isinstance(stated, str) else "", files=tuple(licence_texts))
