"""Git repositories as sources: files and licence of one commit, read with git's plumbing, without a work tree."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from diffusion_core.checkpoints.atomic import new_folder
from train.data.archives import RawSource
from train.data.errors import CorpusError
from train.data.licences import LICENCE_FILE, LicenceClaim
from train.data.source_files import MAX_READ_BYTES, is_source_path

CLONE_TIMEOUT_S = 1800
# Nothing that a repository brings along may run, and git must not ask for a password.
_SAFE = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never")
_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}


def run_git(folder: Path | None, *arguments: str, stdin: bytes = b"", timeout_s: float = 300) -> bytes:
    """What git prints.

    Raises:
        CorpusError: git is missing or failed; the message ends with what it said.
    """
    # A clone that another user made is fine: nothing of it is run.
    where = () if folder is None else ("-c", f"safe.directory={folder}", f"--git-dir={folder}")
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *_SAFE, *where, *arguments],  # noqa: S607
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **_ENVIRONMENT},
        )
    except FileNotFoundError:
        raise CorpusError("git is not installed: repositories cannot be read") from None
    except subprocess.TimeoutExpired:
        raise CorpusError(f"git {arguments[0]} did not finish within {timeout_s:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"])[-1]
        raise CorpusError(f"git {arguments[0]} failed for {folder or arguments[-1]}: {said}")
    return done.stdout


def find_git_folder(path: Path) -> Path | None:
    """The git directory at ``path``: itself if bare, or its ``.git``."""
    for candidate in (path / ".git", path):
        if (candidate / "HEAD").is_file() and (candidate / "objects").is_dir():
            return candidate.resolve()
    return None


def open_repository(url: str, name: str, clones: Path) -> Path:
    """The git directory of a local path, of an earlier clone in ``clones``, or of a new bare clone there.

    Raises:
        CorpusError: nothing there, or git could not clone it.
    """
    kept = find_git_folder(clones / f"{name}.git") or find_git_folder(clones / name)
    if kept is not None:
        return kept
    is_remote = "://" in url or url.startswith("git@")
    if not is_remote:
        found = find_git_folder(Path(url).expanduser())
        if found is None:
            raise CorpusError(f"{name}: {url} is no git repository")
        return found
    target = clones / f"{name}.git"
    with new_folder(target) as draft:
        run_git(None, "clone", "--bare", "--quiet", "--", url, str(draft / "clone"), timeout_s=CLONE_TIMEOUT_S)
        for child in (draft / "clone").iterdir():
            child.rename(draft / child.name)
        (draft / "clone").rmdir()
    return target


def resolve_commit(git_folder: Path, revision: str = "HEAD") -> str:
    """The full hash of a commit.

    Raises:
        CorpusError: no such commit.
    """
    return run_git(git_folder, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()


def read_repository(git_folder: Path, commit: str) -> RawSource:
    """Source files and licence files of a commit.

    Raises:
        CorpusError: no such commit, or a damaged repository.
    """
    wanted: list[tuple[str, str]] = []
    for row in (
        run_git(git_folder, "ls-tree", "-r", "-l", "-z", "--full-tree", commit).decode("utf-8", "replace").split("\0")
    ):
        head, _, path = row.partition("\t")
        mode, kind, digest, size = head.split() if path else ("", "", "", "")
        if kind != "blob" or mode == "120000" or not size.isdigit() or int(size) > MAX_READ_BYTES:
            continue
        is_licence = "/" not in path and LICENCE_FILE.fullmatch(PurePosixPath(path).name)
        if is_licence or is_source_path(path):
            wanted.append((path, digest))
    files: dict[str, bytes] = {}
    licences: list[str] = []
    for (path, _), raw in zip(wanted, _read_blobs(git_folder, [digest for _, digest in wanted]), strict=True):
        if is_source_path(path):
            files[path] = raw
        else:
            licences.append(raw.decode("utf-8", "replace"))
    return RawSource(files, LicenceClaim(files=tuple(licences)))


def _read_blobs(git_folder: Path, digests: list[str]) -> Iterator[bytes]:
    output = run_git(git_folder, "cat-file", "--batch", stdin="".join(f"{digest}\n" for digest in digests).encode())
    position = 0
    for digest in digests:
        end = output.find(b"\n", position)
        fields = output[position:end].split()
        if end < 0 or len(fields) != 3:
            raise CorpusError(f"git cannot read object {digest} of {git_folder}")
        size = int(fields[2])
        yield output[end + 1 : end + 1 + size]
        position = end + 2 + size
