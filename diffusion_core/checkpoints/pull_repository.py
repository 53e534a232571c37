"""Pull a repository of the hub under a name of its own, once its family and its licence are settled. No torch."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from diffusion_core.checkpoints.atomic import hold_lock, new_folder, remove, translate_disk_errors
from diffusion_core.checkpoints.families.contract import read_contract
from diffusion_core.checkpoints.families.family import Family
from diffusion_core.checkpoints.families.recognise import AUTO, FAMILIES, recognise
from diffusion_core.checkpoints.hf_config import CONFIG_FILE, read_json
from diffusion_core.checkpoints.hub_repository import Repository, fetch_files, list_repository
from diffusion_core.checkpoints.licence import AskLicence, refuse_all, require_acceptance
from diffusion_core.checkpoints.registry import registry
from diffusion_core.checkpoints.sources import Progress, ignore_progress
from diffusion_core.checkpoints.store import (
    Receipt,
    checkpoint_folder,
    hash_checkpoint,
    is_downloaded,
    lock_path,
    partial_folder,
    read_receipt,
    today,
    write_receipt,
)
from diffusion_core.checkpoints.vocabulary_files import read_folder_tokenizer
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import DIFFUSION_CONFIG_FILE

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_repository(name: str) -> bool:
    """Whether ``name`` is written like a repository of the hub: ``owner/name``."""
    return bool(_REPOSITORY.fullmatch(name)) and not name.startswith((".", "~"))


def name_of_repository(repo: str) -> str:
    """The name under which a repository is kept: its last part, in lower case."""
    return _sanitise(repo.rsplit("/", 1)[-1])


def choose_name(repo: str) -> tuple[str, str]:
    """The name to keep a repository under, and why it is not the short one; "" where it is.

    A name of the registry promises exact contents, and a name that is taken is somebody's: neither is replaced by a
    repository that merely ends alike. The owner is put before it then.

    Raises:
        CheckpointError: the longer name is taken as well.
    """
    short = name_of_repository(repo)
    reason = _why_taken(short, repo)
    if not reason:
        return short, ""
    name = _sanitise(repo.replace("/", "-"))
    if again := _why_taken(name, repo):
        raise CheckpointError(f"{repo} has no name to be kept under: {reason}, and {again}; remove the one not needed")
    return name, reason


def _sanitise(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]", "-", text.lower()).strip("._-")[:80]


def _why_taken(name: str, repo: str) -> str:
    """What keeps another checkpoint under ``name``; empty if nothing does."""
    if not name:
        return "its own name has no letter or digit"
    if name in registry():
        return f"{name} is another model"
    try:
        origin = read_receipt(checkpoint_folder(name)).origin
    except CheckpointError:
        return ""  # no checkpoint, or a damaged one
    held = origin.removeprefix("hub: ").rsplit(" at ", 1)[0]
    is_same = origin.startswith("hub: ") and held.lower() == repo.lower()
    return "" if is_same else f"{name} is a checkpoint from {held}"


def pull_repository(
    repo: str,
    *,
    name: str = "",
    revision: str = "main",
    family: str = AUTO,
    accept_licence: str = "",
    ask: AskLicence = refuse_all,
    progress: Progress = ignore_progress,
) -> Path:
    """Bring a checkpoint of the hub into the cache and give its folder.

    It is kept under ``name``, or under that of :func:`choose_name`. The family is that which lists the repository, or
    is told by its files, unless ``family`` names it. For ``accept_licence`` and ``ask`` see licence.py.

    Raises:
        SourceUnreachable: the hub cannot be reached; what was fetched is kept for the next attempt.
        CheckpointError: no such repository, of no known family, a licence that was not accepted, wrong content.
    """
    while True:
        chosen, reason = (name, "") if name else choose_name(repo)
        waiting = f"waiting for another pull of {chosen}"
        with hold_lock(lock_path(chosen), partial(progress, 0, 0, waiting)):
            if not name and choose_name(repo)[0] != chosen:
                continue  # another repository took the name while this one waited
            if reason:
                progress(0, 0, f"kept as {chosen}: {reason}")
            return _pull_locked(
                repo, chosen, revision=revision, family=family, accept_licence=accept_licence, ask=ask,
                progress=progress,
            )  # fmt: skip


def _pull_locked(
    repo: str, name: str, *, revision: str, family: str, accept_licence: str, ask: AskLicence, progress: Progress
) -> Path:
    """As :func:`pull_repository`; the caller holds the lock of ``name``."""
    folder, unfinished = checkpoint_folder(name), partial_folder(name, "hub")
    progress(0, 0, f"asking the hub for {repo}")
    repository = list_repository(repo, revision)
    origin = f"hub: {repo} at {repository.commit}"
    if is_downloaded(name) and read_receipt(folder).origin == origin:
        progress(repository.size_bytes, repository.size_bytes, "already here")
        return folder
    with translate_disk_errors(unfinished):
        unfinished.mkdir(parents=True, exist_ok=True)
        found = _fetch_small(repository, unfinished, family, progress)
        accepted = require_acceptance(name, found, accept_licence, ask)
        small = sum(file.remote.size_bytes for file in repository.small)
        fetch_files(repository, repository.weights, unfinished, progress, done_before=small)
        sha256 = hash_checkpoint(unfinished)
        receipt = Receipt(
            name=name, source="hub", origin=origin, file="", size_bytes=repository.size_bytes, sha256=sha256,
            family=found.name, accepted_licence=accepted, pulled_at=today(),
        )  # fmt: skip
        progress(receipt.size_bytes, receipt.size_bytes, "storing")
        with new_folder(folder) as draft:
            for file in (*repository.small, *repository.weights):
                (unfinished / file.name).rename(draft / file.name)
            write_receipt(draft, receipt)
        remove(unfinished)
    return folder


def _fetch_small(repository: Repository, folder: Path, family: str, progress: Progress) -> Family:
    """The small files: the family that they show decides whether the weights are fetched at all."""
    wanted = {file.name for file in (*repository.small, *repository.weights)}
    for stale in folder.iterdir():  # of another commit that had other files
        if stale.name not in wanted:
            remove(stale)
    fetch_files(repository, repository.small, folder, progress)
    return find_folder_family(folder, _known(repository.repo) if family == AUTO else family)


def _known(repo: str) -> str:
    """The family that lists this very repository."""
    listed = (f.name for f in FAMILIES.values() if repo.lower() in {known.lower() for known in f.repositories})
    return next(listed, AUTO)


def find_folder_family(folder: Path, wanted: str = AUTO) -> Family:
    """The family of a folder whose weights need not be there yet, its contract checked.

    Raises:
        CheckpointError: of no known family, or its files contradict each other.
    """
    path = folder / CONFIG_FILE
    values = read_json(path)
    vocabulary = read_folder_tokenizer(folder).get_vocab(with_added_tokens=True)
    is_described = (folder / DIFFUSION_CONFIG_FILE).exists()
    family = recognise(path, values, vocabulary, wanted=wanted, is_described=is_described)
    if not is_described:
        read_contract(family, path, values, vocabulary)
    return family
