"""Which device and dtype an engine runs on, and how much memory there is."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from diffusion_core.config import EngineConfig
from diffusion_core.errors import ConfigError
from diffusion_core.kernels.library import why_no_kernels
from diffusion_core.model.packed import why_not_served
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import multiplies_tiles

_QUANTIZED = (Quantization.INT8.value, Quantization.INT4.value)
# A smaller model's forwards are bound by the number of operations, of which 8 bits take more; where tiles multiply
# bfloat16, so are those of all models that are not bound by the bytes of their weights.
# Our own kernels (kernels/) are for 8 bits alone.
_LARGE_BYTES, _LARGE_BESIDE_TILES = 50e6, 1.05e9
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(config: EngineConfig) -> torch.device:
    """The configured device; ``auto`` is a CUDA GPU if there is one, else the CPU.

    Raises:
        ConfigError: the device is unknown or not present.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
    except RuntimeError:
        raise ConfigError(f"engine.device is {config.device!r}: allowed are auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("engine.device is cuda, and torch finds no CUDA GPU: use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"engine.device is {config.device}: this machine has {torch.cuda.device_count()} GPU(s)")
    return device


@dataclass(frozen=True)
class Precision:
    """``dtype`` of the activations and the cache, and of the weights unless these are quantised."""

    dtype: torch.dtype
    weights: Quantization = Quantization.NONE

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.") if self.weights is Quantization.NONE else self.weights.value


def choose_precision(config: EngineConfig, device: torch.device, stored_bytes: int = 0) -> Precision:
    """The configured dtype; ``auto`` and the activations beside quantised weights are as :func:`choose_dtype` says.

    ``auto`` also makes the weights of a model with so many ``stored_bytes`` 8 bits wide where that decodes faster, and
    nearly as exactly as in bfloat16: on CPUs that have instructions for it, and of large models where they have tiles.

    Raises:
        ConfigError: ``int8`` is configured and this machine cannot multiply weights in 8 bits.
    """
    if config.dtype not in _QUANTIZED:
        is_cpu = device.type == "cpu"
        narrow = is_cpu and config.dtype == "auto" and _prefers_int8(stored_bytes)
        weights = Quantization.INT8 if narrow else Quantization.NONE
        return Precision(_choose_dtype_beside(weights, config, device), weights)
    weights = Quantization(config.dtype)
    if reason := why_not_served(weights, device.type):
        raise ConfigError(f"engine.dtype is {weights}, and {reason}: use auto or int4")
    return Precision(_choose_dtype_beside(weights, config, device), weights)


def choose_dtype(config: EngineConfig, device: torch.device) -> torch.dtype:
    """The configured dtype; ``auto`` is bfloat16 where the device computes in it, else float32."""
    if config.dtype not in ("auto", *_QUANTIZED):
        return _DTYPES[config.dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # Without these instructions bfloat16 is emulated and slower than float32.
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported() if torch.backends.mkldnn.is_available() else False  # type: ignore[no-untyped-call]
    return torch.bfloat16 if has_bf16 else torch.float32


def _choose_dtype_beside(weights: Quantization, config: EngineConfig, device: torch.device) -> torch.dtype:
    """Our own kernels keep keys and values in bfloat16, on CPUs that do not compute in it too."""
    has_kernels = weights is Quantization.INT8 and device.type == "cpu" and not why_no_kernels()
    return torch.bfloat16 if has_kernels else choose_dtype(config, device)


def _prefers_int8(stored_bytes: int) -> bool:
    """Measured on x86 alone: elsewhere oneDNN's products of 8 bits may be right and slow."""
    if stored_bytes < _LARGE_BYTES:
        return False
    if not why_no_kernels():
        return True
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    is_large = stored_bytes >= _LARGE_BESIDE_TILES or not multiplies_tiles()
    return is_large and is_x86 and not why_not_served(Quantization.INT8, "cpu")


def resident_bytes() -> int:
    """Resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def usable_cores() -> int:
    """Cores that this process may use: what its affinity and its control group's quota allow."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def thread_candidates() -> tuple[int, ...]:
    """Numbers of threads worth trying, most first: a thread for each core, and fewer where there are many.

    Two threads of one core share its arithmetic, slow cores hold fast ones up, and memory is soon the limit.
    """
    cores = usable_cores()
    physical = min(cores, psutil.cpu_count(logical=False) or cores)
    if physical <= 2:
        return (physical,)
    return tuple(sorted({cores, physical, -(-physical * 3 // 4), -(-physical // 2), -(-physical // 4)}, reverse=True))


def return_freed_memory() -> None:
    """Give the system back what loading a model freed, where the C library can: half a gigabyte may stay otherwise."""
    with suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
