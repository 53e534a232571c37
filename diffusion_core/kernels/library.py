"""The compiled kernels as Python calls them: C types, signatures, and whether they can be used here."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache

from diffusion_core.kernels.compiler import CompilationFailed, compiled_library, find_compiled
from diffusion_core.kernels.kinds import SWITCH, Kind, usable_kinds, why_not_here
from diffusion_core.kernels.probe import multiplies_exactly

logger = logging.getLogger(__name__)

_loading = threading.Lock()


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
    """An adapter's pairs: 4 handles for each layer (forward.h)."""

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


def must_compile() -> bool:
    """Whether :func:`why_no_kernels` will compile: seconds with a system's compiler, a minute with ``ziglang``."""
    kinds = usable_kinds()
    return bool(kinds) and find_compiled(kinds[0].flags) is None


def advice() -> str:
    """What a user can do for kernels that this CPU has the instructions for; empty: nothing, or nobody asked for them.

    It never compiles.
    """
    if not _load.cache_info().currsize or not usable_kinds():
        return ""
    reason = why_no_kernels()
    return f"this CPU would answer two to three times as fast with compiled kernels: {reason}" if reason else ""


def _load_once() -> tuple[ctypes.CDLL | None, str]:
    with _loading:  # models load side by side, and one compilation is enough
        return _load()


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if reason := why_not_here():
        return None, reason
    kinds = usable_kinds()
    if not kinds:
        wanted = os.environ.get(SWITCH, "auto")
        return None, "this CPU has no AVX2 with FMA" if wanted == "auto" else f"{SWITCH} is {wanted}"
    reason = ""
    for kind in kinds:
        try:
            return _open(kind), ""
        except CompilationFailed as error:
            logger.info("no %s kernels: %s", kind.name, error)
            reason = reason or str(error)
    return None, reason


def _open(kind: Kind) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(compiled_library(kind.flags)))
    except OSError:  # of another system, or damaged
        try:
            library = ctypes.CDLL(str(compiled_library(kind.flags, again=True)))
        except OSError as error:
            raise CompilationFailed(f"what was compiled cannot be loaded: {error}") from None
    _declare(library)
    if library.unmask_enable() != 0:
        raise CompilationFailed("the system does not allow the CPU's tiles (AMX)")
    if not multiplies_exactly(library):
        raise CompilationFailed("what was compiled does not multiply exactly")
    return library


def _declare(library: ctypes.CDLL) -> None:
    matrix = [c_int, c_int, c_int, c_void_p, c_void_p, c_int]
    product = [c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_void_p, c_int]
    model = [*[c_int] * 6, c_float, POINTER(LayerWeights)]
    for name, arguments, result in (
        ("enable", [], c_int),
        ("matrix", matrix, c_void_p),
        ("free_matrix", [c_void_p], None),
        ("pair", [c_int, c_int, c_int, c_void_p, c_void_p], c_void_p),
        ("free_pair", [c_void_p], None),
        ("product", product, c_int),
        ("best", [c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_int], c_int),
        ("model", model, c_void_p),
        ("free_model", [c_void_p], None),
        ("forward", [c_void_p, POINTER(Request), c_int], c_int),
    ):
        function = getattr(library, f"unmask_{name}")
        function.argtypes, function.restype = arguments, result
