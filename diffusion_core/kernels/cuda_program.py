"""CUDA kernels from source: compiled by NVRTC, which comes with torch, and launched through the driver.

No compiler has to be installed and nothing is compiled before it is needed. What was compiled is kept under the cache
folder, by a hash of sources, options and compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diffusion_core.config import cache_folder
from diffusion_core.kernels.compiler import CompilationFailed, is_own

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "cuda"
_MAX_DYNAMIC_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class DriverError(Exception):
    """The CUDA driver refused a call; the message says which and why."""


def compile_program(main: str, defines: Mapping[str, object], capability: tuple[int, int]) -> bytes:
    """Machine code of ``main``, a file of the sources, for a device of that compute capability.

    Raises:
        CompilationFailed: NVRTC was not found, or it failed; the message says why.
    """
    nvrtc = _Nvrtc()
    options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}", "-std=c++17"]
    options += [f"-D{name}={value}" for name, value in sorted(defines.items())]
    sources = {path.name: path.read_text() for path in sorted(SOURCES.iterdir()) if path.suffix in (".cu", ".cuh")}
    digest = hashlib.sha256(repr((main, sources, options, nvrtc.version)).encode()).hexdigest()
    kept = cache_folder() / "kernels" / f"{digest[:20]}.cubin"
    if kept.exists() and is_own(kept) and is_own(kept.parent):
        return kept.read_bytes()
    headers = {name: text for name, text in sources.items() if name.endswith(".cuh")}
    code = nvrtc.compile('#include "device.cuh"\n' + sources[main], main, headers, options)
    _keep(kept, code)
    return code


def _keep(path: Path, code: bytes) -> None:
    """Write ``code`` for the next time; where that cannot be done it is compiled again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(code)
        Path(file.name).replace(path)
    except OSError as error:
        logger.warning("%s cannot be written to: %s", path.parent, error.strerror)


class _Nvrtc:
    """NVIDIA's compiler at run time."""

    def __init__(self) -> None:
        self._library = _load_nvrtc()
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = major.value, minor.value

    def compile(self, source: str, name: str, headers: Mapping[str, str], options: Sequence[str]) -> bytes:
        """Machine code of ``source``."""
        library, program = self._library, ctypes.c_void_p()
        texts = (ctypes.c_char_p * len(headers))(*[text.encode() for text in headers.values()])
        names = (ctypes.c_char_p * len(headers))(*[name.encode() for name in headers])
        given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        status = library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names
        )
        if status != 0:
            raise CompilationFailed(f"NVRTC takes no program (error {status})")
        try:
            if library.nvrtcCompileProgram(program, len(options), given) != 0:
                log = self._read(program, "nvrtcGetProgramLog").decode(errors="replace").rstrip("\0")
                errors = [line for line in log.splitlines() if "error" in line] or log.splitlines()
                raise CompilationFailed(f"NVRTC failed: {errors[0] if errors else 'it said nothing'}")
            return self._read(program, "nvrtcGetCUBIN")
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(self._library, f"{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self._library, what)(program, buffer)
        return buffer.raw


def _load_nvrtc() -> ctypes.CDLL:
    for candidate in _nvrtc_candidates():
        try:
            return ctypes.CDLL(str(candidate))
        except OSError:
            continue
    raise CompilationFailed("NVRTC was not found: it comes with torch's builds for CUDA")


def _nvrtc_candidates() -> Iterator[Path | str]:
    """Where torch's packages put it, then wherever the system finds it."""
    torch = importlib.util.find_spec("torch")
    if torch is not None and torch.origin is not None:
        folder = Path(torch.origin).parent
        for pattern in ("nvidia/*/lib/libnvrtc.so.*", "torch/lib/libnvrtc*.so*"):
            yield from (path for path in sorted(folder.parent.glob(pattern)) if "builtins" not in path.name)
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


class Kernel:
    """A kernel on the current device of the calling thread; torch has made its context current there."""

    def __init__(self, code: bytes, name: str, *, num_blocks: int, num_threads: int, shared_bytes: int) -> None:
        self._driver = _load_driver()
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        self._code = code  # the driver may read it as long as the module is loaded
        self._check("cuModuleLoadData", ctypes.byref(self._module), code)
        self._check("cuModuleGetFunction", ctypes.byref(self._function), self._module, name.encode())
        self._check("cuFuncSetAttribute", self._function, _MAX_DYNAMIC_SHARED_BYTES, shared_bytes)
        self._sizes = num_blocks, 1, 1, num_threads, 1, 1, shared_bytes

    def launch(self, arguments: ctypes.Structure, stream: int) -> None:
        """Launch with ``arguments`` as the only parameter; all blocks are on the device at once.

        Raises:
            DriverError: the device cannot hold all blocks at once, or another refusal.
        """
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        sizes = [ctypes.c_uint(size) for size in self._sizes]
        self._check("cuLaunchCooperativeKernel", self._function, *sizes, ctypes.c_void_p(stream), pointers)

    def _check(self, name: str, *values: object) -> None:
        status = getattr(self._driver, name)(*values)
        if status != 0:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(status, ctypes.byref(text))
            raise DriverError(f"{name}: {(text.value or b'unknown error').decode()} ({status})")


def _load_driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DriverError(f"the CUDA driver cannot be loaded: {error}") from None
