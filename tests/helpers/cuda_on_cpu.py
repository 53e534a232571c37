"""Compiles a CUDA kernel's source for the CPU, to run it on the CPU: see cuda_on_cpu.h, beside this file."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HEADER = Path(__file__).with_name("cuda_on_cpu.h")

FLAGS = (
    "-O1",
    "-g",
    "-std=c++17",
    "-shared",
    "-fPIC",
    # Kernels read the same bytes as different types, which CUDA compilers allow.
    "-fno-strict-aliasing",
    # Some CPUs would otherwise fuse a multiplication and an addition: results must not depend on that.
    "-ffp-contract=off",
)


def compile_on_cpu(
    compiler: Sequence[str], sources: Sequence[str | Path], defines: Mapping[str, object], folder: Path
) -> ctypes.CDLL:
    """Compiles the sources as one file with the command of a C++ compiler, and loads the result.

    A `Path` is a file to include, a `str` is source text. A name that `EXPORT_KERNEL` was given is
    a function `NAME_on_cpu(arguments, blocks, threads, shared_bytes, seed)` of the library: it
    returns 0, or 1 where no GPU could take that many threads or bytes. If the kernel deadlocks or
    breaks a rule of CUDA, it prints why and ends the process.

    Raises `RuntimeError` with the compiler's output if a source does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A new folder each time: a library of the same name would not be loaded a second time.
    build = Path(tempfile.mkdtemp(prefix="on_cpu_", dir=folder)).resolve()
    source = build / "kernel.cpp"
    library = build / "kernel.so"
    source.write_text("".join(_text(index, part) for index, part in enumerate(sources)), "utf-8")
    command = [*compiler, *FLAGS, "-include", str(HEADER.resolve()), "-DON_CPU"]
    command += [f"-D{name}={_value(value)}" for name, value in defines.items()]
    done = subprocess.run([*command, str(source), "-o", str(library)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{compiler[0]} failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return ctypes.CDLL(str(library))


def _text(index: int, part: str | Path) -> str:
    """The lines that bring one source into the file; errors then name its own line numbers."""
    if isinstance(part, Path):
        return f'#include "{part.resolve()}"\n'
    return f'#line 1 "source_{index}"\n{part}\n'


def _value(value: object) -> str:
    return str(int(value) if isinstance(value, bool) else value)
