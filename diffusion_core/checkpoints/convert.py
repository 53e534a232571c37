"""The converted copy: a foreign checkpoint in our own layout, made once and kept in the cache.

Its folder's name holds the hash of the original, the dtype and the converter's version: another original, or a newer
converter, never meets an old copy. The 8-bit and the 4-bit form (quantized_file.py) are copies of their own; a tuning
is merged into them before, as adding to numbers of 8 bits would lose most of it, and is part of the name too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffusion_core.checkpoints.atomic import hold_lock, new_folder, remove, require_space
from diffusion_core.checkpoints.families.recognise import AUTO
from diffusion_core.checkpoints.layout import WEIGHTS_FILE, ShapeCheck, accept_any, is_own_layout, write_records
from diffusion_core.checkpoints.quantized_file import WEIGHTS_FILES, quantize_targets, quantized_layout
from diffusion_core.checkpoints.safetensors_file import PlannedTensor, write_streaming
from diffusion_core.checkpoints.sources import Progress
from diffusion_core.checkpoints.store import hash_checkpoint, lock_path
from diffusion_core.checkpoints.tuning import Tuning, hash_tuning, load_tuning
from diffusion_core.checkpoints.weights import Target, read_target
from diffusion_core.config import cache_folder
from diffusion_core.errors import CheckpointError
from diffusion_core.model.quantization import Quantization

if TYPE_CHECKING:
    from diffusion_core.checkpoints.foreign import ForeignCheckpoint

CONVERTER_VERSION = 1

logger = logging.getLogger(__name__)


def converted_folder(
    sha256: str,
    dtype: torch.dtype,
    *,
    quantize: Quantization = Quantization.NONE,
    family: str = "",
    tuning_sha256: str = "",
) -> Path:
    """Where the converted copy of a checkpoint with that hash is or will be kept.

    ``family`` is as what it is read; "" for a file that is read as what it says. ``tuning_sha256``: of what is merged.
    """
    weights = "" if quantize is Quantization.NONE else quantize.value
    parts = (family, weights, str(dtype).removeprefix("torch."), tuning_sha256[:12])
    kind = "-".join(part for part in parts if part)
    return cache_folder() / "converted" / f"{sha256[:32]}-{kind}-{CONVERTER_VERSION}"


def ensure_converted(
    path: Path,
    dtype: torch.dtype,
    progress: Progress,
    *,
    quantize: Quantization = Quantization.NONE,
    family: str = AUTO,
    tuning: Path | None = None,
    expected_sha256: str | None = None,
    again: bool = False,
    check: ShapeCheck = accept_any,
) -> Path:
    """The converted copy of a ``.gguf`` file or Hugging Face folder; made if it is not there.

    ``expected_sha256`` is what the receipt of a pull promises: it is verified before converting. ``again`` throws an
    existing copy away. ``quantize`` is the copy with weights in that form, ``tuning`` merged; ``dtype`` is that of the
    rest. ``family`` names the family of a folder that does not show it. ``check`` sees the shape before anything is
    written.

    Raises:
        CheckpointError: the original or the tuning is damaged or not supported, or there is no space.
    """
    if tuning is not None and quantize is Quantization.NONE:
        raise ValueError("into plain weights a tuning is merged when they are loaded")
    sha256 = expected_sha256 or hash_checkpoint(path)
    folder = converted_folder(
        sha256,
        dtype,
        quantize=quantize,
        family=_read_as(path, family),
        tuning_sha256="" if tuning is None else hash_tuning(tuning),
    )
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
        with open_foreign(path, family) as foreign:
            check(foreign.model_config, foreign.diffusion_config)
            merged = None if tuning is None else load_tuning(tuning, foreign.model_config)
            _write_copy(foreign, folder, dtype, progress, quantize=quantize, tuning=merged)
    return folder


def _read_as(path: Path, family: str) -> str:
    """What marks the copy: a file that is read as what it says needs no mark."""
    return "" if path.is_file() and family == AUTO else family


def _write_copy(
    foreign: ForeignCheckpoint,
    folder: Path,
    dtype: torch.dtype,
    progress: Progress,
    *,
    quantize: Quantization,
    tuning: Tuning | None,
) -> None:
    config, targets = foreign.model_config, foreign.targets
    layout = {target.name: PlannedTensor(dtype, target.shape) for target in targets}
    is_quantized = quantize is not Quantization.NONE
    if is_quantized:
        layout = quantized_layout(config, targets, dtype, quantize)
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
        pieces = read_target(foreign.source, target, torch.float32 if is_quantized else dtype)
        return pieces if tuning is None else tuning.merge_pieces(target.name, pieces)

    plain = ((target.name, read(target)) for target in targets)
    tensors = quantize_targets(config, targets, read, quantize) if is_quantized else plain
    with new_folder(folder) as draft:
        write_streaming(draft / WEIGHTS_FILES.get(quantize, WEIGHTS_FILE), counted(tensors), layout)
        write_records(draft, config, foreign.tokenizer, foreign.diffusion_config)
