"""Compiles the kernels of decoding rounds for GPUs that need not be there: ``python -m helpers.compile_kernels 80 90``.

Prints a line for each: compute capability, kernel, shared memory in bytes, and whether registers spill to memory.
Run it in a process of its own, without Triton's interpreter.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import triton
from bench import product_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from diffusion_core.model import round_triton as kernels

T, L, F = "*bf16", "*i64", "*fp32"
PARTS = {"mixes": F, "maxima": F, "sums": F}
CHANGE = {"is_slot": L, "low_stride": "i32", "scale": "fp32", "num_out": "i32"}
NORM = {
    "x": T, "delta": T, "weight": T, "total": T, "normalised": T, "size": "i32", "eps": "fp32", "delta_stride": "i32",
    "low": T, "up": T, **CHANGE,
}  # fmt: skip
ROWS = {
    "qkv": T, "cos": T, "sin": T, "start": L, "queries": T, "keys": T, "values": T, "head_stride": "i32",
    "row_stride": "i32", "low_rank": T, "up": T, **CHANGE,
}  # fmt: skip
SEEN = {"start": L, "sees_cache": L, "among": L}
HEADS = {"head_stride": "i32", "scale": "fp32", "num_rows": "i32"}
ATTEND = {"queries": T, "keys": T, "values": T, **SEEN, **PARTS, **HEADS}
JOIN = {**PARTS, "mixed": T, "start": L, "num_rows": "i32", "num_chunks": "i32"}
GATE = {"gate_up": T, "result": T, "size": "i32", "row_stride": "i32", "low": T, "up_pair": T, **CHANGE}

PRODUCT = {"x": T, "weight": T, "y": T, "num_rows": "i32", "num_out": "i32"}


def heads(**more: int) -> list[dict[str, int]]:
    """The attention shapes of the default models."""
    return [{"GROUP": group, "SIZE": size, "CHUNK": kernels.CHUNK, **more} for group, size in ((7, 64), (6, 128))]


def variants() -> list[tuple[Any, dict[str, str], dict[str, Any]]]:
    """Every kernel with the types of its arguments and its constants."""
    found: list[tuple[Any, dict[str, str], dict[str, Any]]] = []
    for change in ({"HAS_CHANGE": False, "RANK": 1}, {"HAS_CHANGE": True, "RANK": 32}):
        found += [(kernels._add_norm, NORM, {"HAS_DELTA": True, "BLOCK": size, **change}) for size in (1024, 2048)]
        found.append((kernels._gate, GATE, {"BLOCK": kernels.GATE_BLOCK, **change}))
        found += [
            (kernels._store_rows, ROWS, {"NUM_HEADS": h, "NUM_KV": 2, "SIZE": s, **change})
            for h, s in ((14, 64), (12, 128))
        ]
    found.append((kernels._add_norm, NORM, {"HAS_DELTA": False, "BLOCK": 2048, "HAS_CHANGE": False, "RANK": 1}))
    found += [(kernels._attend_chunk, ATTEND, sizes) for sizes in heads(PADDED=kernels.LEAST_DOT)]
    found += [
        (product_kernel._product, PRODUCT, {"NUM_IN": 896, "ROWS": product_kernel.ROWS, "OUT": out, "IN": at_once})
        for out, at_once in ((16, 128), (128, 64))
    ]
    found += [(kernels._join_chunks, JOIN, sizes) for sizes in heads(TOGETHER=kernels.CHUNKS_TOGETHER)]
    return found


def main(capabilities: list[int]) -> None:
    """Compile all of them for all of these."""
    for capability in capabilities:
        for kernel, types, constants in variants():
            names = kernel.arg_names
            source = ASTSource(
                kernel,
                signature={name: types.get(name, "constexpr") for name in names},
                constexprs={(names.index(name),): value for name, value in constants.items()},
            )
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            assert "cubin" in made.asm
            line = {"capability": capability, "kernel": kernel.__name__, "shared": made.metadata.shared}
            print(json.dumps(line | {"spills": "ld.local" in made.asm["ptx"]}))


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
