"""The tensors and the shape of a model in a GGUF file: Llama, Qwen2 and Qwen3 architectures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import gguf.quants
import numpy as np
from gguf import GGMLQuantizationType

from diffusion_core.checkpoints.gguf_file import GGUFFile, GGUFTensor, read_gguf
from diffusion_core.checkpoints.gguf_rope import read_rope_scaling
from diffusion_core.checkpoints.weights import Shape
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

ARCHITECTURES = ("llama", "qwen2", "qwen3")
_TYPES = frozenset(
    {
        GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16,
        GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q5_0, GGMLQuantizationType.Q5_1,
        GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q2_K, GGMLQuantizationType.Q3_K, GGMLQuantizationType.Q4_K,
        GGMLQuantizationType.Q5_K, GGMLQuantizationType.Q6_K,
    }
)  # fmt: skip


class GGUFSource:
    """The tensors of a GGUF file, dequantised to float32 as they are read."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        # A plain array over the mapping: every slice of a np.memmap pays for its class.
        self._data = np.asarray(np.memmap(file.path, dtype=np.uint8, mode="r"))
        for tensor in file.tensors.values():
            if tensor.type not in _TYPES:
                allowed = ", ".join(sorted(kind.name for kind in _TYPES))
                raise CheckpointError(
                    f"{file.path}: tensor {tensor.name} is stored as {tensor.type.name}, supported are {allowed}"
                )

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Name -> shape of every tensor."""
        return {name: tensor.shape for name, tensor in self._file.tensors.items()}

    def where(self, name: str) -> str:
        """The file, for messages."""
        return str(self._file.path)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop``, float32."""
        import torch

        tensor = self._file.tensors[name]
        return torch.from_numpy(self._dequantise(tensor, start, stop))

    def _dequantise(self, tensor: GGUFTensor, start: int, stop: int) -> np.ndarray:
        if len(tensor.shape) == 1:  # blocks may span its values: it is read as one row
            raw = self._data[tensor.offset : tensor.offset + tensor.num_bytes].reshape(1, -1)
        else:
            row_bytes = tensor.num_bytes // tensor.shape[0]
            first, last = (tensor.offset + row * row_bytes for row in (start, stop))
            raw = self._data[first:last].reshape(stop - start, row_bytes)
        # A corrupted block may hold any scale: what overflows is found by the caller's check for finite values.
        with np.errstate(over="ignore", invalid="ignore"):
            values = gguf.quants.dequantize(raw, tensor.type)
        if len(tensor.shape) == 1:
            values = values.reshape(-1)[start:stop]
        return np.require(values, dtype=np.float32, requirements=["C", "W"]).reshape(stop - start, *tensor.shape[1:])


def read_model_config(file: GGUFFile) -> ModelConfig:
    """The shape of the model.

    Raises:
        CheckpointError: another architecture (the supported ones are named), or metadata is missing or contradicts
            itself.
    """
    arch = file.require("general.architecture", str)
    if arch not in ARCHITECTURES:
        raise CheckpointError(f"{file.path}: architecture {arch!r} is not supported: {', '.join(ARCHITECTURES)} are")
    width: int = file.require(f"{arch}.embedding_length", int)
    num_heads: int = file.require(f"{arch}.attention.head_count", int)
    if num_heads < 1 or width < 1:
        raise CheckpointError(f"{file.path}: {num_heads} heads over {width} channels make no model")
    head_dim = file.get(f"{arch}.attention.key_length", int, width // num_heads)
    value_dim = file.get(f"{arch}.attention.value_length", int, head_dim)
    rotated = file.get(f"{arch}.rope.dimension_count", int, head_dim)
    if value_dim != head_dim or rotated != head_dim or head_dim % 2:
        raise CheckpointError(
            f"{file.path}: heads of {head_dim} for keys, {value_dim} for values and {rotated} rotated are not "
            "supported: all must be the same even number"
        )
    context = file.require(f"{arch}.context_length", int)
    if file.get(f"{arch}.attention.sliding_window", int, context) < context:
        raise CheckpointError(f"{file.path}: sliding-window attention is not supported")
    if file.get(f"{arch}.expert_count", int, 0):
        raise CheckpointError(f"{file.path}: mixtures of experts are not supported")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError(f"{file.path}: tensor token_embd.weight is missing")
    theta = file.get(f"{arch}.rope.freq_base", float, 10_000.0)
    return ModelConfig(
        vocab_size=embedding.shape[0],
        hidden_size=width,
        intermediate_size=file.require(f"{arch}.feed_forward_length", int),
        num_layers=file.require(f"{arch}.block_count", int),
        num_heads=num_heads,
        num_kv_heads=file.get(f"{arch}.attention.head_count_kv", int, num_heads),
        head_dim=head_dim,
        rope_theta=theta,
        rope_scaling=read_rope_scaling(file, arch, head_dim, theta),
        rms_norm_eps=file.require(f"{arch}.attention.layer_norm_rms_epsilon", float),
        qkv_bias=arch == "qwen2" or "blk.0.attn_q.bias" in file.tensors,
        qk_norm=arch == "qwen3",
        tie_word_embeddings="output.weight" not in file.tensors,
        max_position_embeddings=context,
    )


def has_interleaved_rotary(file: GGUFFile) -> bool:
    """Whether query and key rows are stored in GGUF's interleaved order (Llama only)."""
    return bool(file.metadata.get("general.architecture") == "llama")


def open_gguf(path: Path) -> tuple[GGUFFile, GGUFSource]:
    """Header and tensors of a GGUF file; raises :class:`CheckpointError` as :func:`read_gguf` does."""
    file = read_gguf(path)
    return file, GGUFSource(file)
