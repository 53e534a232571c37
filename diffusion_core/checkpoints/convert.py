"""The converted copy: a foreign checkpoint in our own layout, made once and kept in the cache.

Its folder's name holds the hash of the original, the dtype and the converter's version: another original, or a newer
converter, never meets an old copy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffusion_core.checkpoints.atomic import hold_lock, new_folder, remove, require_space
from diffusion_core.checkpoints.layout import WEIGHTS_FILE, is_own_layout, write_records
from diffusion_core.checkpoints.safetensors_file import write_streaming
from diffusion_core.checkpoints.sources import Progress
from diffusion_core.checkpoints.store import hash_checkpoint, lock_path
from diffusion_core.checkpoints.weights import Shape, read_target
from diffusion_core.config import cache_folder
from diffusion_core.errors import CheckpointError

if TYPE_CHECKING:
    from diffusion_core.checkpoints.foreign import ForeignCheckpoint

CONVERTER_VERSION = 1

logger = logging.getLogger(__name__)


def converted_folder(sha256: str, dtype: torch.dtype) -> Path:
    """Where the converted copy of a checkpoint with that hash is or will be kept."""
    kind = str(dtype).removeprefix("torch.")
    return cache_folder() / "converted" / f"{sha256[:32]}-{kind}-{CONVERTER_VERSION}"


def ensure_converted(
    path: Path, dtype: torch.dtype, progress: Progress, *, expected_sha256: str | None = None, again: bool = False
) -> Path:
    """The converted copy of a ``.gguf`` file or Hugging Face folder; made if it is not there.

    ``expected_sha256`` is what the receipt of a pull promises: it is verified before converting. ``again`` throws an
    existing copy away.

    Raises:
        CheckpointError: the original is damaged or not supported, or there is no space.
    """
    sha256 = expected_sha256 or hash_checkpoint(path)
    folder = converted_folder(sha256, dtype)
    if not again and is_own_layout(folder):
        return folder
    lock = lock_path(f"convert-{folder.name}")
    with hold_lock(lock, lambda: progress(0, 0, f"waiting for another process that converts {path.name}")):
        if again:
            remove(folder)
        if is_own_layout(folder):
            return folder
        if expected_sha256 is not None and (found := hash_checkpoint(path)) != expected_sha256:
            raise CheckpointError(
                f"{path} is damaged: sha256 {found}, expected {expected_sha256}; remove it and pull it again"
            )
        # Imported for a conversion only: a start from the copy needs none of the foreign formats.
        from diffusion_core.checkpoints.foreign import open_foreign

        logger.info("converting %s to %s once", path.name, folder.name)
        with open_foreign(path) as foreign:
            _write_copy(foreign, folder, dtype, progress)
    return folder


def _write_copy(foreign: ForeignCheckpoint, folder: Path, dtype: torch.dtype, progress: Progress) -> None:
    layout = {target.name: target.shape for target in foreign.targets}
    total = sum(prod(shape) for shape in layout.values()) * dtype.itemsize
    require_space(folder, total)
    done = 0

    def counted(pieces: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        nonlocal done
        for piece in pieces:
            yield piece
            done += piece.numel() * dtype.itemsize
            progress(done, total, "converting")

    def tensors() -> Iterator[tuple[str, Shape, Iterator[torch.Tensor]]]:
        for target in foreign.targets:
            yield target.name, target.shape, counted(read_target(foreign.source, target, dtype))

    with new_folder(folder) as draft:
        write_streaming(draft / WEIGHTS_FILE, tensors(), layout, dtype)
        write_records(draft, foreign.model_config, foreign.tokenizer, foreign.diffusion_config)
