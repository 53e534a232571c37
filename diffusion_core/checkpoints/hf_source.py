"""The tensors of a folder in Hugging Face layout: one safetensors file, or shards with an index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from diffusion_core.checkpoints.path_source import refuse_pickle
from diffusion_core.checkpoints.safetensors_file import FLOAT_TYPES, StoredTensor, read_header
from diffusion_core.checkpoints.weights import Shape
from diffusion_core.errors import CheckpointError

if TYPE_CHECKING:
    import torch

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


class HFSource:
    """The tensors of a folder; a context manager that keeps its files open."""

    def __init__(self, folder: Path) -> None:
        self._listing, self._files = _find_files(folder)
        self._tensors: dict[str, StoredTensor] = {}
        headers = {path: read_header(path) for path in dict.fromkeys(self._files.values())}
        for name, path in self._files.items():
            if name not in headers[path]:
                raise CheckpointError(f"{path}: tensor {name} is missing, {folder / INDEX_FILE} places it there")
            stored = headers[path][name]
            if stored.dtype not in FLOAT_TYPES:
                raise CheckpointError(
                    f"{path}: tensor {name} has type {stored.dtype}, supported are {', '.join(FLOAT_TYPES)}"
                )
            self._tensors[name] = stored
        for path, header in headers.items():
            for name in header:
                if self._files.get(name) != path:
                    raise CheckpointError(f"{path}: tensor {name} is unexpected, the index does not place it there")
        self._stack = ExitStack()
        self._open: dict[Path, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.clear()
        self._stack.close()

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Name -> shape of every tensor."""
        return {name: stored.shape for name, stored in self._tensors.items()}

    def where(self, name: str) -> str:
        """The file that holds this tensor; for one that is nowhere, the index or the single file."""
        return str(self._files.get(name, self._listing))

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` in the stored dtype."""
        from safetensors import SafetensorError, safe_open

        path = self._files[name]
        try:
            if path not in self._open:
                self._open[path] = self._stack.enter_context(safe_open(path, framework="pt"))
            rows: torch.Tensor = self._open[path].get_slice(name)[start:stop]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: tensor {name} cannot be read: {error}") from None
        return rows


def _find_files(folder: Path) -> tuple[Path, dict[str, Path]]:
    """The file that lists the tensors (index or single file), and tensor -> file."""
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.exists() and not index.exists():
        return single, dict.fromkeys(read_header(single), single)
    if not index.exists():
        for path in sorted(folder.iterdir()):
            refuse_pickle(path)
        raise CheckpointError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}")
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): folder / file for name, file in placed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} cannot be read: {type(error).__name__}") from None
    for path in dict.fromkeys(files.values()):
        if path.parent != folder or path.suffix != ".safetensors":
            raise CheckpointError(f"{index} names the shard {path.name}, which is no safetensors file of this folder")
        if not path.exists():
            raise CheckpointError(f"{path} is missing: {index.name} names it as a shard")
    if not files:
        raise CheckpointError(f"{index} names no tensors")
    return index, files
