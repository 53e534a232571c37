"""How much memory is free for a model, and whether one fits before it is loaded."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from diffusion_core.checkpoints.footprint import Footprint, WeightForm, estimate
from diffusion_core.config import EngineConfig
from diffusion_core.engine.device import Precision, resident_bytes
from diffusion_core.errors import OutOfMemory
from diffusion_core.model.config import AttentionPattern, ModelConfig
from diffusion_core.model.packed import can_pack, why_not_served
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import why_not_eight_bits

logger = logging.getLogger(__name__)

# Contexts that a message proposes, most first.
_CONTEXTS = (8192, 4096, 2048, 1024)
GB = 1e9


def available_bytes(config: EngineConfig, device: torch.device) -> int:
    """Memory of the device that a further model may take: the configured limit less what is used, and what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = min(psutil.virtual_memory().available, cgroup_free_bytes())
    if not config.memory_limit_bytes:
        return int(free)
    # What the process has in the host's memory says nothing of a GPU's.
    used = torch.cuda.memory_reserved(device) if device.type == "cuda" else resident_bytes()
    return min(int(free), config.memory_limit_bytes - used)


def cgroup_free_bytes(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """What the control groups of this process leave it, in bytes; a very large number where none sets a limit.

    File pages that can be dropped count as free. Both versions of the interface are read, and every group above.
    """
    free = 2**62
    with suppress(OSError):
        for line in membership.read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                names = ("memory.max", "memory.current", "inactive_file")
                free = min(free, _least_free(root, path, names))
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                free = min(free, _least_free(root / "memory", path, names))
    return free


def _least_free(root: Path, path: str, names: tuple[str, str, str]) -> int:
    """The least that a group or one above it leaves. In a container the path may lead nowhere: then the root counts."""
    free, folder = 2**62, root / path.lstrip("/")
    while folder == root or root in folder.parents:
        with suppress(OSError, ValueError):  # no such group, or "max"
            limit = int((folder / names[0]).read_text(encoding="ascii"))
            used = int((folder / names[1]).read_text(encoding="ascii"))
            free = min(free, max(0, limit - used + _droppable(folder / "memory.stat", names[2])))
        folder = folder.parent
    return free


def _droppable(stat: Path, key: str) -> int:
    with suppress(OSError, ValueError):
        for line in stat.read_text(encoding="ascii").splitlines():
            name, value = line.split()
            if name == key:
                return int(value)
    return 0


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A model of a shape under the settings of an engine: what decides how much memory it takes."""

    shape: ModelConfig
    config: EngineConfig
    device: torch.device
    precision: Precision
    attention: AttentionPattern = AttentionPattern.CAUSAL_CONTEXT

    @property
    def footprint(self) -> Footprint:
        """Memory that it takes."""
        config, device, precision = self.config, self.device, self.precision
        has_int8 = precision.weights is not Quantization.NONE and device.type == "cpu" and not why_not_eight_bits("cpu")
        captures = config.capture in ("exact", "fast") or (config.capture == "auto" and device.type == "cuda")
        return estimate(
            self.shape,
            WeightForm(
                item_bytes=precision.dtype.itemsize,
                quantization=precision.weights,
                packs_head=has_int8 or can_pack(device, precision.dtype),
                has_int8_head=has_int8,
            ),
            context=config.max_context_tokens,
            kept_cache_bytes=config.prefix_cache_bytes,
            num_contexts=2 if captures else 1,
            sees_all=self.attention is AttentionPattern.BIDIRECTIONAL,
        )


def check_fits(name: str, demand: Demand) -> None:
    """Look whether the model of that name fits before anything of it is read.

    Raises:
        OutOfMemory: it does not, and ``engine.memory_check`` is ``refuse``; what would fit is named.
    """
    needed, free = demand.footprint, available_bytes(demand.config, demand.device)
    if needed.total <= free:
        return
    message = (
        f"model {name} in {demand.precision} needs {needed.total / GB:.1f} GB on {demand.device} (weights "
        f"{needed.weights / GB:.1f}, keys and values {needed.caches / GB:.1f}, work space {needed.work / GB:.1f}), and "
        f"{max(free, 0) / GB:.1f} GB are free: {_advice(demand, free)}"
    )
    if demand.config.memory_check == "warn":
        logger.warning("%s", message)
        return
    raise OutOfMemory(message)


def _advice(demand: Demand, free: int) -> str:
    """What to change, as far as it helps: the precision, the context, or the model."""
    narrower = [replace(demand, precision=held) for held in _narrower(demand.precision, demand.device)]
    ways = []
    if (fitting := next((other for other in narrower if other.footprint.total <= free), None)) is not None:
        ways.append(f"set engine.dtype to {fitting.precision} ({fitting.footprint.total / GB:.1f} GB)")
    for other in (demand, *([] if ways else narrower)):
        shorter = (_with_context(other, tokens) for tokens in _CONTEXTS if tokens < other.config.max_context_tokens)
        if (found := next((short for short in shorter if short.footprint.total <= free), None)) is not None:
            also = "" if other is demand else f" and engine.dtype to {other.precision}"
            tokens, size = found.config.max_context_tokens, found.footprint.total / GB
            ways.append(f"set engine.max_context_tokens to {tokens}{also} ({size:.1f} GB)")
            break
    ways.append("choose a smaller model")
    return ", ".join(ways[:-1]) + (" or " if ways[:-1] else "") + ways[-1]


def _with_context(demand: Demand, tokens: int) -> Demand:
    return replace(demand, config=replace(demand.config, max_context_tokens=tokens))


def _narrower(precision: Precision, device: torch.device) -> list[Precision]:
    """Precisions that take less, most first."""
    order = [Precision(precision.dtype, kind) for kind in (Quantization.INT8, Quantization.INT4)]
    order = [held for held in order if not why_not_served(held.weights, device.type)]
    return order[order.index(precision) + 1 :] if precision in order else order
