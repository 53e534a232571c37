"""Compiles the kernels with whatever C++ compiler there is, once for a machine.

The result is kept under the cache folder, by a hash of sources and flags. A compiler is asked for nothing but to be
there: without one, or where it fails, the engine serves with torch's own kernels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from diffusion_core.config import cache_folder

logger = logging.getLogger(__name__)

FOLDER = (
    "UNMASK_KERNELS_FOLDER"  # environment: where compiled kernels were laid ready (`python -m diffusion_core.kernels`)
)
_SOURCES = Path(__file__).parent / "source"
_MAIN = "api.cpp"
_FLAGS = ("-std=c++20", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")
_COMPILERS = ("c++", "g++", "clang++")
_TIMEOUT_S = 300


class CompilationFailed(Exception):
    """There is no compiler, or it failed; the message says which."""


def compiled_library(extensions: Sequence[str] = (), *, again: bool = False) -> Path:
    """The path of the compiled kernels; they are compiled if they are not there, or to be made ``again``.

    ``extensions`` are flags of the compiler for more instructions than all kernels need.

    Raises:
        CompilationFailed: that was not possible.
    """
    if not again and (found := find_compiled(extensions)) is not None:
        return found
    return compile_into(cache_folder() / "kernels", extensions)


def find_compiled(extensions: Sequence[str]) -> Path | None:
    """The compiled kernels, where they are there already."""
    name = _library_name((*_FLAGS, *extensions))
    folders = (Path(os.environ.get(FOLDER) or cache_folder() / "kernels"), cache_folder() / "kernels")
    return next((path for folder in folders if (path := folder / name).exists() and is_own(path)), None)


def compile_into(folder: Path, extensions: Sequence[str]) -> Path:
    """Compile into ``folder`` and return the library's path.

    Raises:
        CompilationFailed: that was not possible.
    """
    flags = (*_FLAGS, *extensions)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CompilationFailed(f"{folder} cannot be made: {error.strerror}") from None
    if not is_own(folder):
        raise CompilationFailed(f"{folder} belongs to somebody else, or others may write to it")
    path = folder / _library_name(flags)
    _compile(path, flags)
    return path


def _library_name(flags: Sequence[str] = _FLAGS) -> str:
    digest = hashlib.sha256(" ".join(flags).encode())
    for source in sorted(_SOURCES.iterdir()):
        if source.suffix in (".h", ".cpp"):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return f"{digest.hexdigest()[:20]}.so"


def is_own(path: Path) -> bool:
    """Whether only this user (or the system's) can have written ``path``: code is loaded from it."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def find_compiler() -> list[str]:
    """The command of a C++ compiler: ``$CXX``, the system's, or the one in the package ``ziglang``; else empty."""
    if chosen := os.environ.get("CXX"):
        return shlex.split(chosen)
    for name in _COMPILERS:
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "c++"]
    return []


def _compile(path: Path, flags: Sequence[str]) -> None:
    command = find_compiler()
    if not command:
        raise CompilationFailed("no C++ compiler was found: install g++ or clang, or the package ziglang")
    logger.info("compiling kernels for this CPU, once, with %s", command[0])
    try:
        with tempfile.TemporaryDirectory(prefix="making-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            _run([*command, *flags, str(_SOURCES / _MAIN), "-o", str(made)])
            made.chmod(0o755)
            made.replace(path)
    except OSError as error:
        raise CompilationFailed(f"{path.parent} cannot be written to: {error.strerror}") from None


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, text=True)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilationFailed(f"{command[0]} could not be run: {error}") from None
    if result.returncode != 0:
        reasons = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
        raise CompilationFailed(f"{command[0]} failed: {reasons[0] if reasons else 'it said nothing'}")
