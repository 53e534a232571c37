"""Small git repositories made from a list of commits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ScriptedCommit:
    """Files to write (None deletes one), the message, and who commits."""

    message: str
    files: Mapping[str, str | None] = field(default_factory=dict)
    author: str = "Ada"
    email: str = "ada@example.org"


def make_repository(folder: Path, commits: Sequence[ScriptedCommit]) -> Path:
    """A bare repository with these commits, oldest first; its path."""
    work = folder / "work"
    work.mkdir(parents=True)
    git(work, "init", "--quiet", "--initial-branch=main")
    for number, commit in enumerate(commits):
        for path, text in commit.files.items():
            target = work / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                target.unlink()
            else:
                target.write_text(text)
        git(work, "add", "--all")
        who = {"NAME": commit.author, "EMAIL": commit.email, "DATE": f"2024-01-01T00:00:{number:02d}Z"}
        names = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
        git(work, "commit", "--quiet", "--allow-empty", "-m", commit.message, environment=names)
    bare = folder / "project.git"
    git(folder, "clone", "--quiet", "--bare", str(work), str(bare))
    return bare


def git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What git prints when run in a folder, away from the user's own configuration."""
    done = subprocess.run(
        ["git", "-c", "commit.gpgsign=false", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **(environment or {})},
    )
    return done.stdout.strip()
