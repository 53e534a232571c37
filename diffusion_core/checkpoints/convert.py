"""The converted copy: a foreign checkpoint in our own layout, made once and kept in the cache.

Its folder's name holds the hash of the original, the dtype and the converter's version: another original, or a newer
converter, never meets an old copy. The 8-bit form (int8_file.py) is a copy of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffusion_core.checkpoints.atomic import hold_lock, new_folder, remove, require_space
from diffusion_core.checkpoints.int8_file import INT8_WEIGHTS_FILE, int8_layout, quantize_targets
from diffusion_core.checkpoints.layout import WEIGHTS_FILE, is_own_layout, write_records
from diffusion_core.checkpoints.safetensors_file import PlannedTensor, write_streaming
from diffusion_core.checkpoints.sources import Progress
from diffusion_core.checkpoints.store import hash_checkpoint, lock_path
from diffusion_core.checkpoints.weights import Target, read_target
from diffusion_core.config import cache_folder
from diffusion_core.errors import CheckpointError

if TYPE_CHECKING:
    from diffusion_core.checkpoints.foreign import ForeignCheckpoint

CONVERTER_VERSION = 1

logger = logging.getLogger(__name__)


def converted_folder(sha256: str, dtype: torch.dtype, *, quantized: bool = False) -> Path:
    """Where the converted copy of a checkpoint with that hash is or will be kept."""
    kind = ("int8-" if quantized else "") + str(dtype).removeprefix("torch.")
    return cache_folder() / "converted" / f"{sha256[:32]}-{kind}-{CONVERTER_VERSION}"


def ensure_converted(
    path: Path,
    dtype: torch.dtype,
    progress: Progress,
    *,
    quantized: bool = False,
    expected_sha256: str | None = None,
    again: bool = False,
) -> Path:
    """The converted copy of a ``.gguf`` file or Hugging Face folder; made if it is not there.

    ``expected_sha256`` is what the receipt of a pull promises: it is verified before converting. ``again`` throws an
    existing copy away. ``quantized`` is the copy with weights in 8 bits; ``dtype`` is that of the rest.

    Raises:
        CheckpointError: the original is damaged or not supported, or there is no space.
    """
    sha256 = expected_sha256 or hash_checkpoint(path)
    folder = converted_folder(sha256, dtype, quantized=quantized)
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
            _write_copy(foreign, folder, dtype, progress, quantized=quantized)
    return folder


def _write_copy(
    foreign: ForeignCheckpoint, folder: Path, dtype: torch.dtype, progress: Progress, *, quantized: bool
) -> None:
    config, targets = foreign.model_config, foreign.targets
    layout = {target.name: PlannedTensor(dtype, target.shape) for target in targets}
    if quantized:
        layout = int8_layout(config, targets, dtype)
    total = sum(planned.num_bytes for planned in layout.values())
    require_space(folder, total)
    done = 0

    def counted(tensors: Iterator[tuple[str, Iterator[torch.Tensor]]]) -> Iterator[tuple[str, Iterator[torch.Tensor]]]:
        for name, pieces in tensors:
            yield name, counted_pieces(name, pieces)

    def counted_pieces(name: str, pieces: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        nonlocal done
        for piece in pieces:
            yield piece
            done += piece.numel() * layout[name].dtype.itemsize
            progress(done, total, "converting")

    def read(target: Target) -> Iterator[torch.Tensor]:
        return read_target(foreign.source, target, torch.float32 if quantized else dtype)

    tensors = quantize_targets(config, targets, read) if quantized else ((t.name, read(t)) for t in targets)
    with new_folder(folder) as draft:
        write_streaming(draft / (INT8_WEIGHTS_FILE if quantized else WEIGHTS_FILE), counted(tensors), layout)
        write_records(draft, config, foreign.tokenizer, foreign.diffusion_config)
