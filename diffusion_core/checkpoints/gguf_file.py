"""Read the header of a GGUF file: metadata and where each tensor lies, every access checked against the file's size.

The ``gguf`` package reads such files too, but builds an array object for each of the vocabulary's strings (ten seconds
and a gigabyte for 150,000 tokens) and cuts short silently at a truncated end; its types, block sizes and dequantisers
are what we use.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from diffusion_core.errors import CheckpointError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4


@dataclass(frozen=True, kw_only=True)
class GGUFTensor:
    """Where a tensor lies. ``shape`` is in row-major order: rows first (the file stores it reversed)."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class GGUFFile:
    """A parsed header. Values of ``metadata`` are Python scalars, strings and lists of them."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]

    def require(self, key: str, kind: type) -> Any:
        """The metadata value of ``key``.

        Raises:
            CheckpointError: it is missing or of another type.
        """
        value = self.metadata.get(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            found = "missing" if value is None else f"a {type(value).__name__}"
            raise CheckpointError(f"{self.path}: metadata {key} is {found}, {kind.__name__} expected")
        return value

    def get(self, key: str, kind: type, default: Any) -> Any:
        """Like :meth:`require`, with a value for a missing key."""
        return self.require(key, kind) if key in self.metadata else default


def read_gguf(path: Path) -> GGUFFile:
    """Parse and check the header of a GGUF file (version 2 or 3, little-endian).

    Raises:
        CheckpointError: no GGUF file, damaged, truncated (the first tensor beyond the end is named), or of a kind that
            is not supported.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Parser(path, data).parse()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


class _Parser:
    """A cursor over the mapped file that never reads past its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.at = 0

    def parse(self) -> GGUFFile:
        if self.size < 24 or self.data[:4] != b"GGUF":
            raise CheckpointError(f"{self.path} is no GGUF file, or ends within its header")
        self.at = 4
        version = self.scalar("I")
        if version not in (2, 3):
            hint = " (a big-endian file?)" if version > 0xFFFF else ""
            raise CheckpointError(f"{self.path}: GGUF version {version} is not supported: 2 and 3 are{hint}")
        num_tensors, num_values = self.scalar("Q"), self.scalar("Q")
        metadata: dict[str, Any] = {}
        for _ in range(num_values):
            key = self.string("a metadata key")
            metadata[key] = self.value(self.scalar("I"), f"metadata {key}")
        if int(metadata.get("split.count", 1)) > 1:
            raise CheckpointError(
                f"{self.path} is one of several split files: merge them with `llama-gguf-split --merge`"
            )
        infos = [self.tensor_info() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self.damaged("metadata general.alignment")
        start = -(-self.at // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in infos:
            if name in tensors:
                raise CheckpointError(f"{self.path}: tensor {name} is there twice")
            tensors[name] = self.located(name, shape, kind, start + offset)
        return GGUFFile(path=self.path, metadata=metadata, tensors=tensors)

    def damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged or truncated: {what} at byte {self.at} of {self.size}")

    def take(self, num_bytes: int, what: str) -> int:
        """Move past the next bytes and give where they begin."""
        start = self.at
        if num_bytes > self.size - start:
            raise self.damaged(what)
        self.at = start + num_bytes
        return start

    def scalar(self, code: str, what: str = "the header") -> Any:
        start = self.take(struct.calcsize("<" + code), what)
        return struct.unpack_from("<" + code, self.data, start)[0]

    def string(self, what: str) -> str:
        length = self.scalar("Q", what)
        start = self.take(length, what)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged(f"{what} is not UTF-8") from None

    def value(self, kind: int, what: str) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind], what)
        if kind == _STRING:
            return self.string(what)
        if kind != _ARRAY:
            raise self.damaged(f"{what} has the unknown type {kind}")
        element, count = self.scalar("I", what), self.scalar("Q", what)
        if element == _STRING:
            if count * 8 > self.size - self.at:
                raise self.damaged(what)
            return [self.string(what) for _ in range(count)]
        if element not in _SCALARS:
            raise self.damaged(f"{what} is an array of the unsupported type {element}")
        code = _SCALARS[element]
        start = self.take(count * struct.calcsize("<" + code), what)
        return list(struct.unpack_from(f"<{count}{code}", self.data, start))

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string("a tensor's name")
        what = f"tensor {name}"
        num_dimensions = self.scalar("I", what)
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise self.damaged(f"{what} has {num_dimensions} dimensions")
        shape = tuple(self.scalar("Q", what) for _ in range(num_dimensions))[::-1]
        return name, shape, self.scalar("I", what), self.scalar("Q", what)

    def located(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GGUFTensor:
        try:
            quantisation = GGMLQuantizationType(kind)
            block, block_bytes = GGML_QUANT_SIZES[quantisation]
        except (ValueError, KeyError):
            raise CheckpointError(f"{self.path}: tensor {name} has the unknown type {kind}") from None
        if shape[-1] % block:
            raise CheckpointError(
                f"{self.path}: tensor {name} has rows of {shape[-1]}, no multiple of {quantisation.name}'s {block}"
            )
        elements = 1
        for size in shape:
            elements *= size
        num_bytes = elements // block * block_bytes
        if offset + num_bytes > self.size:
            raise CheckpointError(
                f"{self.path} is truncated: tensor {name} ends at byte {offset + num_bytes}, the file has {self.size}"
            )
        return GGUFTensor(name=name, shape=shape, type=quantisation, offset=offset, num_bytes=num_bytes)
