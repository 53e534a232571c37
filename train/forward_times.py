"""How long a forward takes over the size of its block: the paper's figure 2b, measured on a served checkpoint."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from diffusion_core.checkpoints.atomic import write_file
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.engine.loaded_model import build_drafter
from diffusion_core.errors import ConfigError
from diffusion_core.model.config import MODEL_CONFIG_FILE
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.sampling.evaluate import PREFILL_ROWS, Denoiser
from train.config import ModelSettings

FORWARD_TIMES_FILE = "forward_times.json"
BLOCK_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTEXT_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class ForwardTime:
    """Median time of a forward with its logits. ``block_size`` slots ride behind ``context_tokens`` cached tokens."""

    block_size: int
    milliseconds: float
    context_tokens: int


@torch.inference_mode()
def measure_forward_times(
    denoiser: Denoiser,
    *,
    block_sizes: Sequence[int] = BLOCK_SIZES,
    context_tokens: int = CONTEXT_TOKENS,
    repeats: int = 7,
    limit_seconds: float = 20.0,
) -> list[ForwardTime]:
    """Forward time over block size (paper 3.4, figure 2b), with the serving code and its cache.

    A drafter that rides in the model's forward (gated adapter) is included; a draft head is not, as its own layers
    run before that forward. Stops early after ``limit_seconds``: what is there by then is returned.
    """
    model, end = denoiser.model, time.monotonic() + limit_seconds
    context_tokens = min(context_tokens, model.config.max_position_embeddings - max(block_sizes))
    cache = KVCache(model.config, capacity=context_tokens + max(block_sizes), dtype=model.dtype, device=model.device)
    while cache.length < context_tokens:
        rows = min(PREFILL_ROWS, context_tokens - cache.length)
        denoiser.evaluate(cache, [(7 * place) % 251 for place in range(rows)])
        cache.commit(rows)
    times: list[ForwardTime] = []
    for size in block_sizes:
        if time.monotonic() > end and times:
            break
        seconds = [_time_forward(denoiser, cache, size) for _ in range(repeats + 1)][1:]
        median = 1000 * statistics.median(seconds)
        times.append(ForwardTime(block_size=size, milliseconds=median, context_tokens=context_tokens))
    return times


def _time_forward(denoiser: Denoiser, cache: KVCache, block_size: int) -> float:
    fill = denoiser.mask_id if denoiser.mask_id is not None else 0
    visible = torch.ones(block_size, block_size, dtype=torch.bool)
    _synchronise(denoiser)
    start = time.perf_counter()
    hidden = denoiser.evaluate(cache, [fill] * block_size, visible=visible, first_slot=0)
    denoiser.logits(hidden)
    _synchronise(denoiser)
    return time.perf_counter() - start


def _synchronise(denoiser: Denoiser) -> None:
    if denoiser.model.device.type == "cuda":
        torch.cuda.synchronize(denoiser.model.device)


def load_denoiser(checkpoint: Path, settings: ModelSettings, device: torch.device) -> Denoiser:
    """The model of a run's checkpoint as the engine serves it: a whole model, or a drafter on the run's base.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[settings.dtype]
    if (checkpoint / MODEL_CONFIG_FILE).exists():
        loaded = load_checkpoint(str(checkpoint), dtype=dtype, device=device)
    else:
        loaded = load_checkpoint(settings.base, dtype=dtype, device=device, drafter=checkpoint)
    return Denoiser(loaded.model, loaded.diffusion_config, *build_drafter(loaded.model, loaded.adapter))


def write_forward_times(folder: Path, times: Sequence[ForwardTime], device: str) -> None:
    """Keep a measurement beside the run's other figures."""
    content = {"device": device, "times": [asdict(entry) for entry in times]}
    write_file(folder / FORWARD_TIMES_FILE, (json.dumps(content, indent=1) + "\n").encode())


def read_forward_times(folder: Path) -> tuple[str, list[ForwardTime]]:
    """The device and the measurement of a run's folder; an empty one where none was made.

    Raises:
        ConfigError: the file is damaged.
    """
    path = folder / FORWARD_TIMES_FILE
    if not path.exists():
        return "", []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["device"]), [ForwardTime(**entry) for entry in content["times"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): remove it, or measure anew with --forward-times") from None
