"""The compiled kernels as Python calls them: C types, signatures, and whether they can be used here."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
import threading
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from diffusion_core.kernels.compiler import CompilationFailed, compiled_library

logger = logging.getLogger(__name__)

SWITCH = "UNMASK_KERNELS"  # environment; `off`: they are not used
_loading = threading.Lock()
_NEEDED = ("amx_tile", "amx_int8", "amx_bf16", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")


class LayerWeights(Structure):
    """The weights of a layer (forward.h): handles of matrices, addresses of float32 vectors."""

    _fields_ = tuple(
        (name, c_void_p)
        for name in (
            *("qkv", "o", "gate_up", "down"),
            *("attention_norm", "mlp_norm", "qkv_bias", "query_norm", "key_norm"),
        )
    )


class Sequence(Structure):
    """Rows of one sequence, and its cache (attention.h)."""

    _fields_ = (
        ("cache", c_void_p),
        ("layer_stride", c_int64),
        ("head_stride", c_int64),
        ("length", c_int64),
        ("count", c_int64),
        ("rows", c_void_p),
        ("visible", c_void_p),
    )


class Adapter(Structure):
    """An adapter's pairs: 8 addresses for each layer (forward.h)."""

    _fields_ = (("rank", c_int), ("layers", c_void_p))


class Request(Structure):
    """One forward (forward.h)."""

    _fields_ = (
        *(
            (name, c_int32)
            for name in ("count", "first_slot", "first_layer", "last_layer", "num_sequences", "num_taps")
        ),
        *((name, c_void_p) for name in ("cosines", "sines", "x")),
        ("sequences", POINTER(Sequence)),
        ("adapter", POINTER(Adapter)),
        ("taps", POINTER(c_int32)),
        *((name, c_void_p) for name in ("tapped", "norm", "hidden")),
    )


def why_no_kernels() -> str:
    """Why the kernels cannot be used on this machine; empty when they can. The first call may compile them."""
    return _load_once()[1]


def kernels() -> ctypes.CDLL:
    """The compiled kernels. :func:`why_no_kernels` says whether there are any."""
    library, reason = _load_once()
    assert library is not None, reason
    return library


def advice() -> str:
    """What a user can do for kernels that this CPU has the instructions for; empty: nothing, or nobody asked for them.

    It never compiles.
    """
    if not _load.cache_info().currsize or is_switched_off() or _what_lacks():
        return ""
    reason = why_no_kernels()
    return f"this CPU would answer two to three times as fast with compiled kernels: {reason}" if reason else ""


def is_switched_off() -> bool:
    """Whether the environment says that they are not to be used."""
    return os.environ.get(SWITCH, "auto").lower() in ("off", "0", "no", "false")


def _load_once() -> tuple[ctypes.CDLL | None, str]:
    with _loading:  # models load side by side, and one compilation is enough
        return _load()


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if is_switched_off():
        return None, f"{SWITCH} is off"
    if reason := _what_lacks():
        return None, reason
    try:
        return _open(), ""
    except CompilationFailed as error:
        logger.info("no kernels for this CPU: %s", error)
        return None, str(error)


def _what_lacks() -> str:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "they are for Linux on x86-64"
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "/proc/cpuinfo cannot be read"
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    lacking = [name for name in _NEEDED if name not in flags]
    return f"this CPU has no {lacking[0]}" if lacking else ""


def _open() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(compiled_library()))
    except OSError:  # of another system, or damaged
        try:
            library = ctypes.CDLL(str(compiled_library(again=True)))
        except OSError as error:
            raise CompilationFailed(f"what was compiled cannot be loaded: {error}") from None
    _declare(library)
    if library.unmask_enable() != 0:
        raise CompilationFailed("the system does not allow the CPU's tiles (AMX)")
    return library


def _declare(library: ctypes.CDLL) -> None:
    matrix = [c_int, c_int, c_int, c_void_p, c_void_p, c_int]
    product = [c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_void_p, c_int]
    model = [*[c_int] * 6, c_float, POINTER(LayerWeights)]
    for name, arguments, result in (
        ("enable", [], c_int),
        ("matrix", matrix, c_void_p),
        ("free_matrix", [c_void_p], None),
        ("product", product, c_int),
        ("best", [c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_int], c_int),
        ("model", model, c_void_p),
        ("free_model", [c_void_p], None),
        ("forward", [c_void_p, POINTER(Request), c_int], c_int),
    ):
        function = getattr(library, f"unmask_{name}")
        function.argtypes, function.restype = arguments, result
