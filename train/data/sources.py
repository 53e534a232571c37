"""Collecting: reads every source of a manifest, checks licence and hash, and stores its files in one place.

A collected source is one gzip file of JSON lines: a header with the manifest's entry, then one file a line. It is
read back with :func:`read_collected`; nothing is unpacked on the disk.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffusion_core.checkpoints.atomic import hash_file, write_file
from train.data.archives import RawSource, read_archive
from train.data.errors import CorpusError
from train.data.licences import LicenceClaim, decide_licence
from train.data.manifest import SourceEntry, SourceKind
from train.data.packages import read_package, read_stdlib
from train.data.repositories import open_repository, read_repository, resolve_commit
from train.data.source_files import MAX_READ_BYTES, SourceFile, hash_files, is_source_path, read_source


@dataclass(frozen=True, kw_only=True)
class CollectedSource:
    """A source's readable files.

    ``git_folder`` is where a repository's history lies; ``left_out`` counts the files not taken, by reason.
    """

    entry: SourceEntry
    files: tuple[SourceFile, ...] = field(repr=False)
    left_out: Mapping[str, int]
    git_folder: Path | None = None


def resolve_source(entry: SourceEntry, clones: Path) -> tuple[SourceEntry, RawSource, Path | None]:
    """Read a source and fill in version, licence, hash and size of its entry.

    Raises:
        LicenceRefused: the licence is not on the list or cannot be told.
        CorpusError: the source cannot be read.
    """
    git_folder: Path | None = None
    version, sha256 = entry.version, ""
    match entry.kind:
        case SourceKind.PACKAGE:
            package = read_package(entry.name, entry.version)
            version, raw = package.version, package.source
        case SourceKind.STDLIB:
            package = read_stdlib()
            if entry.version and entry.version != package.version:
                raise CorpusError(f"{entry.label}: the running Python is {package.version}; collect with that version")
            version, raw = package.version, package.source
        case SourceKind.ARCHIVE:
            path = Path(entry.url).expanduser()
            if not path.is_file():
                raise CorpusError(f"{entry.label}: there is no archive {path}")
            raw, sha256 = read_archive(path), hash_file(path)
        case SourceKind.REPOSITORY:
            git_folder = open_repository(entry.url, entry.name, clones)
            version = resolve_commit(git_folder, entry.version or "HEAD")
            raw = read_repository(git_folder, version)
        case SourceKind.FOLDER:
            raw = _read_folder(Path(entry.url).expanduser(), entry.name)
    raw = _keep_subfolders(raw, entry)
    if not raw.files:
        raise CorpusError(f"{entry.label}: no source files found")
    is_own = entry.kind is SourceKind.FOLDER  # its licence is what the manifest says
    licence = entry.licence if is_own else decide_licence(entry.label, raw.claim)
    is_pinned = entry.kind in (SourceKind.REPOSITORY, SourceKind.ARCHIVE)
    found = replace(
        entry,
        version=version,
        licence=licence,
        sha256=sha256 if is_pinned else hash_files(raw.files.items()),
        num_bytes=sum(map(len, raw.files.values())),
    )
    return found, raw, git_folder


def collect_source(entry: SourceEntry, clones: Path) -> CollectedSource:
    """Read a source and check it against its manifest entry.

    Raises:
        CorpusError: it cannot be read, has no readable files, or is not what the manifest pins (hash, licence).
    """
    found, raw, git_folder = resolve_source(entry, clones)
    if entry.sha256 and found.sha256 != entry.sha256:
        raise CorpusError(
            f"{entry.label}: sha256 is {found.sha256}, the manifest pins {entry.sha256}; "
            "this is not the source that was added"
        )
    if entry.licence and found.licence != entry.licence:
        raise CorpusError(f"{entry.label}: the licence is {found.licence}, the manifest says {entry.licence}")
    files: list[SourceFile] = []
    left_out: Counter[str] = Counter()
    for path in sorted(raw.files):
        file, reason = read_source(path, raw.files[path])
        if file is None:
            left_out[reason] += 1
        else:
            files.append(file)
    if not files:
        raise CorpusError(
            f"{entry.label}: none of its {len(raw.files)} source files is fit to learn from: {dict(left_out)}"
        )
    return CollectedSource(entry=found, files=tuple(files), left_out=dict(left_out), git_folder=git_folder)


def _read_folder(folder: Path, name: str) -> RawSource:
    if not folder.is_dir():
        raise CorpusError(f"{name}: there is no folder {folder}")
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        is_hidden = any(part.startswith(".") for part in relative.split("/"))
        if is_hidden or path.is_symlink() or not is_source_path(relative) or not path.is_file():
            continue
        try:
            if path.stat().st_size <= MAX_READ_BYTES:
                files[relative] = path.read_bytes()
        except OSError as error:
            raise CorpusError(f"{path} cannot be read: {error.strerror}") from None
    if not files:
        raise CorpusError(f"{name}: the folder {folder} has no source files that can be read")
    return RawSource(files, LicenceClaim())


def _keep_subfolders(raw: RawSource, entry: SourceEntry) -> RawSource:
    if not entry.subfolders:
        return raw
    starts = tuple(f"{folder.rstrip('/')}/" for folder in entry.subfolders)
    return RawSource({path: data for path, data in raw.files.items() if path.startswith(starts)}, raw.claim)


def collected_path(folder: Path, entry: SourceEntry) -> Path:
    """Where a source is kept in a folder of collected ones."""
    slug = re.sub(r"[^A-Za-z0-9.@=+_-]+", "_", entry.label)
    return folder / f"{entry.kind.value}-{slug}.jsonl.gz"


def write_collected(folder: Path, source: CollectedSource) -> Path:
    """Store a collected source, whole or not at all."""
    header = {
        "entry": {**dataclasses.asdict(source.entry), "kind": source.entry.kind.value},
        "left_out": dict(source.left_out),
        "git_folder": "" if source.git_folder is None else str(source.git_folder),
        "num_files": len(source.files),
    }
    rows = [json.dumps(header)] + [json.dumps(dataclasses.asdict(file), ensure_ascii=False) for file in source.files]
    path = collected_path(folder, source.entry)
    write_file(path, gzip.compress(("\n".join(rows) + "\n").encode(), 6, mtime=0))
    return path


def read_collected(path: Path) -> CollectedSource:
    """A source that :func:`write_collected` stored.

    Raises:
        CorpusError: missing or damaged.
    """
    try:
        rows = gzip.decompress(path.read_bytes()).decode("utf-8").removesuffix("\n").split("\n")
        header = json.loads(rows[0])
        fields = header["entry"]
        entry = SourceEntry(**{**fields, "kind": SourceKind(fields["kind"]), "subfolders": tuple(fields["subfolders"])})
        files = tuple(SourceFile(**json.loads(row)) for row in rows[1:])
        if len(files) != header["num_files"]:
            raise ValueError(f"{len(files)} of {header['num_files']} files")
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise CorpusError(f"{path} is damaged ({error}): collect it again") from None
    folder = Path(header["git_folder"]) if header["git_folder"] else None
    return CollectedSource(entry=entry, files=files, left_out=header["left_out"], git_folder=folder)


def collect_all(
    entries: Sequence[SourceEntry], folder: Path, clones: Path
) -> Iterator[tuple[SourceEntry, CollectedSource | CorpusError]]:
    """Collect every source that ``folder`` does not hold yet; what fails is handed back, and the others go on."""
    for entry in entries:
        kept = collected_path(folder, entry)
        try:
            source = read_collected(kept) if kept.exists() else None
            if source is None or (entry.sha256 and source.entry.sha256 != entry.sha256):
                source = collect_source(entry, clones)
                write_collected(folder, source)
        except CorpusError as error:
            yield entry, error
            continue
        yield entry, source
