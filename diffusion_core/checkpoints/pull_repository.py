"""Pull a repository of the hub under a name of its own, once its family and its licence are settled. No torch."""

from __future__ import annotations

import re
from pathlib import Path

from diffusion_core.checkpoints.atomic import hold_lock, new_folder, remove, translate_disk_errors
from diffusion_core.checkpoints.families.contract import read_contract
from diffusion_core.checkpoints.families.family import Family
from diffusion_core.checkpoints.families.recognise import AUTO, FAMILIES, recognise
from diffusion_core.checkpoints.hf_config import CONFIG_FILE, read_json
from diffusion_core.checkpoints.hub_repository import Repository, fetch_files, list_repository
from diffusion_core.checkpoints.licence import AskLicence, refuse_all, require_acceptance
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
from diffusion_core.model.config import DIFFUSION_CONFIG_FILE

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_repository(name: str) -> bool:
    """Whether ``name`` is written like a repository of the hub: ``owner/name``."""
    return bool(_REPOSITORY.fullmatch(name)) and not name.startswith((".", "~"))


def name_of_repository(repo: str) -> str:
    """The name under which a repository is kept: its last part, in lower case."""
    return repo.rsplit("/", 1)[-1].lower().strip("._-")[:80]


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

    It is kept under ``name``, or under :func:`name_of_repository`. The family is that which lists the repository, or is
    told by its files, unless ``family`` names it. For ``accept_licence`` and ``ask`` see licence.py.

    Raises:
        SourceUnreachable: the hub cannot be reached; what was fetched is kept for the next attempt.
        CheckpointError: no such repository, of no known family, a licence that was not accepted, wrong content.
    """
    name = name or name_of_repository(repo)
    folder, partial = checkpoint_folder(name), partial_folder(name, "hub")
    with hold_lock(lock_path(name), lambda: progress(0, 0, f"waiting for another pull of {name}")):
        progress(0, 0, f"asking the hub for {repo}")
        repository = list_repository(repo, revision)
        origin = f"hub: {repo} at {repository.commit}"
        if is_downloaded(name) and read_receipt(folder).origin == origin:
            progress(repository.size_bytes, repository.size_bytes, "already here")
            return folder
        with translate_disk_errors(partial):
            partial.mkdir(parents=True, exist_ok=True)
            found = _fetch_small(repository, partial, family, progress)
            accepted = require_acceptance(name, found, accept_licence, ask)
            small = sum(file.remote.size_bytes for file in repository.small)
            fetch_files(repository, repository.weights, partial, progress, done_before=small)
            sha256 = hash_checkpoint(partial)
            receipt = Receipt(
                name=name, source="hub", origin=origin, file="", size_bytes=repository.size_bytes, sha256=sha256,
                family=found.name, accepted_licence=accepted, pulled_at=today(),
            )  # fmt: skip
            progress(receipt.size_bytes, receipt.size_bytes, "storing")
            with new_folder(folder) as draft:
                for file in (*repository.small, *repository.weights):
                    (partial / file.name).rename(draft / file.name)
                write_receipt(draft, receipt)
            remove(partial)
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
