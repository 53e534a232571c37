"""Where downloaded and converted checkpoints lie, and what is known of each. No torch.

::

    <cache folder>/checkpoints/NAME/         the file or folder that was pulled, and receipt.json
    <cache folder>/converted/KEY/            our own layout, made from a checkpoint of another format
    <cache folder>/partial/NAME.SOURCE/      an unfinished pull, kept so that it can resume
    <cache folder>/hashes/, locks/           sha256 of files given by path; locks between processes
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from diffusion_core.checkpoints.atomic import hash_file, write_file
from diffusion_core.checkpoints.registry import registry
from diffusion_core.config import cache_folder
from diffusion_core.errors import CheckpointError

RECEIPT_FILE = "receipt.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was pulled: ``file`` is the one file inside the folder, or empty when the folder is the checkpoint.

    ``sha256`` is that of the file (of the folder: :func:`hash_checkpoint`), ``origin`` says in words where from.
    ``family`` is the family that was named when it was pulled, or ``auto``. ``accepted_licence`` is the restrictive
    licence that was accepted then, and ``pulled_at`` the day, YYYY-MM-DD; both are "" where there is none.
    """

    name: str
    source: str
    origin: str
    file: str
    size_bytes: int
    sha256: str
    family: str = "auto"
    accepted_licence: str = ""
    pulled_at: str = ""


def today() -> str:
    """The day, YYYY-MM-DD in UTC, for a receipt."""
    return datetime.now(UTC).date().isoformat()


def checkpoint_folder(name: str) -> Path:
    """Where the checkpoint of that name is or will be kept."""
    return cache_folder() / "checkpoints" / name


def partial_folder(name: str, source: str) -> Path:
    """Where an unfinished pull is kept."""
    return cache_folder() / "partial" / f"{name}.{source}"


def lock_path(name: str) -> Path:
    """The lock of one checkpoint name or of one converted copy."""
    return cache_folder() / "locks" / f"{name}.lock"


def check_name(name: str) -> None:
    """Raise :class:`CheckpointError` unless ``name`` may be given to a checkpoint (it becomes a folder's name)."""
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"{name!r} cannot name a checkpoint: lower-case letters, digits, dot, dash and underscore, at most 80"
        )


def downloaded_names() -> list[str]:
    """Names of all complete checkpoints in the cache, also those that the registry does not know."""
    folder = cache_folder() / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(path.parent.name for path in folder.glob(f"[!.]*/{RECEIPT_FILE}"))


def is_downloaded(name: str) -> bool:
    """Whether the checkpoint of that name is in the cache, complete as far as its size tells."""
    try:
        locate_downloaded(name)
    except CheckpointError:
        return False
    return True


def locate(name_or_path: str) -> Path:
    """The folder of a downloaded checkpoint, or the file or folder that a path names.

    A text is a path if it holds a separator, begins with a dot or a tilde, or exists as a file or a folder and is
    no known name.

    Raises:
        CheckpointError: unknown (the known names are listed), not downloaded, or damaged.
    """
    is_known = name_or_path in registry() or name_or_path in downloaded_names()
    path = Path(name_or_path).expanduser()
    if not is_known and (path.exists() or name_or_path.startswith((".", "~")) or len(path.parts) > 1):
        if not path.exists():
            is_repository = len(path.parts) == 2 and not name_or_path.startswith((".", "~", "/"))
            hint = f"; of the hub it is fetched by `unmask pull {name_or_path}`" if is_repository else ""
            raise CheckpointError(f"checkpoint {path} does not exist{hint}")
        return path.resolve()
    return locate_downloaded(name_or_path)


def locate_downloaded(name: str) -> Path:
    """The folder of a named checkpoint, after a look at its receipt and sizes.

    Raises:
        CheckpointError: see :func:`locate`.
    """
    folder = checkpoint_folder(name)
    if not _NAME.fullmatch(name) or not (folder / RECEIPT_FILE).exists():
        if name in registry():
            raise CheckpointError(f"model {name} is not downloaded: run `unmask pull {name}`")
        known = sorted({*registry(), *downloaded_names()})
        raise CheckpointError(f"model {name!r} is unknown: known are {', '.join(known)}, or give the path of a folder")
    receipt = read_receipt(folder)
    target = folder / receipt.file
    found = sum(path.stat().st_size for path in checkpoint_files(target)) if target.exists() else 0
    if found != receipt.size_bytes:
        raise CheckpointError(
            f"{target} is damaged: {found} bytes, {receipt.size_bytes} expected; run `unmask pull {name}` again"
        )
    return folder


def read_receipt(folder: Path) -> Receipt:
    """The receipt in a checkpoint's folder.

    Raises:
        CheckpointError: it is missing or no such record.
    """
    path = folder / RECEIPT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        receipt = Receipt(**values)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; remove {folder} and pull again") from None
    if Path(receipt.file).name != receipt.file or not isinstance(receipt.size_bytes, int):
        raise CheckpointError(f"{path} is damaged; remove {folder} and pull again")
    return receipt


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Write the receipt into a checkpoint's folder."""
    (folder / RECEIPT_FILE).write_text(json.dumps(asdict(receipt), indent=2) + "\n", encoding="utf-8")


def checkpoint_files(path: Path) -> list[Path]:
    """The files that make a checkpoint: the file itself, or what a folder holds (flat), receipt and dotfiles aside."""
    if path.is_file():
        return [path]
    return sorted(
        found
        for found in path.iterdir()
        if found.is_file() and not found.name.startswith(".") and found.name != RECEIPT_FILE
    )


def stored_bytes(name_or_path: str) -> int:
    """Size of a checkpoint's files; 0 where there are none."""
    try:
        path = locate(name_or_path)
    except CheckpointError:
        return 0
    if (path / RECEIPT_FILE).exists():
        return read_receipt(path).size_bytes
    return sum(file.stat().st_size for file in checkpoint_files(path))


def hash_checkpoint(path: Path) -> str:
    """The sha256 of a file, or of the names and hashes of a folder's files.

    Large files are not read again while their size and modification time stay the same.
    """
    if path.is_file():
        return _hash_remembered(path)
    lines = (f"{found.name} {_hash_remembered(found)}\n" for found in checkpoint_files(path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _hash_remembered(path: Path) -> str:
    path = path.resolve()
    stat = path.stat()
    identity = [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino]
    memo = cache_folder() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    try:
        remembered = json.loads(memo.read_text(encoding="utf-8"))
        if remembered["identity"] == identity:
            return str(remembered["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no memory of this file, or a damaged one: read the file
    digest = hash_file(path)
    write_file(memo, json.dumps({"identity": identity, "sha256": digest}).encode())
    return digest
