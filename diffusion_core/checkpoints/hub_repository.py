"""Pull a whole repository of a model hub: configuration, tokenizer and safetensors, nothing that could run. No torch.

The hub lists the files of one commit with their sizes and hashes. What is small comes first, so that a checkpoint of no
known family, or one whose licence was not accepted, is refused before its gigabytes are fetched.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffusion_core.checkpoints.atomic import read_chunks, require_space
from diffusion_core.checkpoints.hf_source import INDEX_FILE, SINGLE_FILE
from diffusion_core.checkpoints.hub_source import TIMEOUT_SECONDS, HubFile, fetch_file, hub_errors
from diffusion_core.checkpoints.partial_file import PartialFile
from diffusion_core.checkpoints.path_source import refuse_pickle
from diffusion_core.checkpoints.sources import Progress
from diffusion_core.errors import CheckpointError

SMALL_FILES = frozenset(
    {
        "config.json", "generation_config.json", "diffusion_config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", INDEX_FILE,
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RepositoryFile:
    """A file of the listing: ``sha256`` of a large one, ``git_sha1`` (of git's blob) of any other."""

    name: str
    remote: HubFile
    git_sha1: str = ""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """The files of a commit that a checkpoint is made of."""

    repo: str
    commit: str
    small: tuple[RepositoryFile, ...]
    weights: tuple[RepositoryFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(file.remote.size_bytes for file in (*self.small, *self.weights))


def list_repository(repo: str, revision: str = "main") -> Repository:
    """What the hub has of a checkpoint.

    Raises:
        SourceUnreachable: the hub cannot be reached.
        CheckpointError: no such repository, no access, or no safetensors in it.
    """
    with hub_errors(repo):
        import huggingface_hub

        endpoint = os.environ.get("HF_ENDPOINT") or None
        api = huggingface_hub.HfApi(endpoint=endpoint)
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS)
        token = huggingface_hub.get_token()
        commit = info.sha or revision
        found: dict[str, RepositoryFile] = {}
        for sibling in info.siblings or ():
            url = huggingface_hub.hf_hub_url(repo, sibling.rfilename, revision=commit, endpoint=endpoint)
            remote = HubFile(
                url=url,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                size_bytes=sibling.size or 0,
                sha256=sibling.lfs.sha256 if sibling.lfs else "",
                commit=commit,
            )
            found[sibling.rfilename] = RepositoryFile(
                name=sibling.rfilename, remote=remote, git_sha1="" if sibling.lfs else sibling.blob_id or ""
            )
    return _choose(repo, commit, found)


def _choose(repo: str, commit: str, found: dict[str, RepositoryFile]) -> Repository:
    weights = [file for name, file in found.items() if "/" not in name and name.endswith(".safetensors")]
    if INDEX_FILE not in found:
        weights = [file for file in weights if file.name == SINGLE_FILE]
    if not weights:
        for name in sorted(found):
            refuse_pickle(Path(name))
        raise CheckpointError(f"{repo} on the hub holds no {SINGLE_FILE} and no {INDEX_FILE}")
    small = [file for name, file in found.items() if name in SMALL_FILES]
    for file in (*small, *weights):
        if not file.remote.sha256 and not file.git_sha1:
            raise CheckpointError(f"the hub announces no hash for {file.name} of {repo}, so it cannot be verified")
    return Repository(repo=repo, commit=commit, small=tuple(small), weights=tuple(weights))


def fetch_files(
    repository: Repository,
    files: tuple[RepositoryFile, ...],
    folder: Path,
    progress: Progress,
    *,
    done_before: int = 0,
) -> None:
    """Fetch files into ``folder``, each verified; what is there already is verified and not fetched again.

    Raises:
        SourceUnreachable: the connection broke too often; what was fetched is kept.
        CheckpointError: wrong content (removed), or no space.
    """
    total, done = repository.size_bytes, done_before
    for file in files:
        remote = file.remote

        def report(what: str, base: int = done) -> Callable[[int], None]:
            return lambda _: progress(base + partial.size, total, what)

        with PartialFile(folder / file.name) as partial:
            partial.resume_bytes(remote.size_bytes, report(f"verifying {file.name}"))
            require_space(folder, remote.size_bytes - partial.size)
            fetch_file(remote, partial, report(f"fetching {file.name}"))
            if remote.sha256:
                partial.verify(remote.sha256, f"{file.name} from {repository.repo}")
        if not remote.sha256:
            _verify_blob(folder / file.name, file, repository.repo)
        done += remote.size_bytes


def _verify_blob(path: Path, file: RepositoryFile, repo: str) -> None:
    """Small files carry git's own hash only: sha1 over a header and the content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as opened:
        for chunk in read_chunks(opened):
            digest.update(chunk)
    if digest.hexdigest() != file.git_sha1:
        path.unlink()
        raise CheckpointError(
            f"{file.name} from {repo} has the wrong content and was removed: git hash {digest.hexdigest()}, "
            f"expected {file.git_sha1}"
        )
