"""The 8-bit form of a checkpoint's weights: a file that is written once, mapped, and packed when a model is loaded.

``model.int8.safetensors`` holds, for every linear layer and for the output head, ``NAME.int8`` [out, in] and
``NAME.scales`` float32 [out]; everything else is plain, under its own name and in the dtype of the activations. The
embedding stays plain: single rows of it are read, so that its size costs disk and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffusion_core.checkpoints.layout import build_empty
from diffusion_core.checkpoints.safetensors_file import PlannedTensor, read_header
from diffusion_core.checkpoints.weights import Target, check_shapes
from diffusion_core.errors import CheckpointError
from diffusion_core.model.adapter import adapted_layers
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.layers import AdaptedLinear
from diffusion_core.model.packed import PackedLinear, replace_linears
from diffusion_core.model.quantized import QuantizedMatrix, QuantizedWeight, quantize_weight
from diffusion_core.model.transformer import Transformer

INT8_WEIGHTS_FILE = "model.int8.safetensors"
_HEAD = "head"
_TYPES = {"I8": torch.int8, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

Pieces = Iterator[torch.Tensor]


def int8_layout(config: ModelConfig, targets: list[Target], dtype: torch.dtype) -> dict[str, PlannedTensor]:
    """Every tensor of the file in order, from the plan of the plain ones (weights.py)."""
    layers = adapted_layers(config)
    layout: dict[str, PlannedTensor] = {}
    for target in targets:
        layer = target.name.removesuffix(".weight")
        if layer in layers:
            layout |= _quantized_pair(layer, target.shape)
        else:
            layout[target.name] = PlannedTensor(dtype, target.shape)
    return layout | _quantized_pair(_HEAD, (config.vocab_size, config.hidden_size))


def _quantized_pair(name: str, shape: tuple[int, ...]) -> dict[str, PlannedTensor]:
    return {
        f"{name}.int8": PlannedTensor(torch.int8, shape),
        f"{name}.scales": PlannedTensor(torch.float32, shape[:1]),
    }


def quantize_targets(
    config: ModelConfig, targets: list[Target], read: Callable[[Target], Pieces]
) -> Iterator[tuple[str, Pieces]]:
    """The tensors of :func:`int8_layout` in its order; ``read`` gives a target's rows in float32, piece by piece."""
    layers = adapted_layers(config)
    for target in targets:
        layer = target.name.removesuffix(".weight")
        if layer in layers:
            yield from _quantize_pieces(layer, read(target))
        else:
            yield target.name, read(target)
    head = "embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    yield from _quantize_pieces(_HEAD, read(next(target for target in targets if target.name == head)))


def _quantize_pieces(name: str, pieces: Pieces) -> Iterator[tuple[str, Pieces]]:
    scales: list[torch.Tensor] = []

    def values() -> Pieces:
        for piece in pieces:
            quantized = quantize_weight(piece)
            scales.append(quantized.scales)
            yield quantized.values

    yield f"{name}.int8", values()
    yield f"{name}.scales", iter(scales)


def load_int8(path: Path, config: ModelConfig, dtype: torch.dtype) -> Transformer:
    """A Transformer for serving on the CPU from the file at ``path``; ``dtype`` is that of the activations.

    Raises:
        CheckpointError: a tensor is missing, unexpected, damaged or of another shape or type; it is named.
    """
    model = build_empty(config)
    _check(path, config, model, dtype)
    _pack(model, _read(path))
    # A mapping of its own for what stays plain: the pages of the packed weights leave our memory with the first one.
    tensors = _read(path)
    model.load_state_dict({name: tensors[name] for name in model.state_dict()}, assign=True)
    return model


def _check(path: Path, config: ModelConfig, model: Transformer, dtype: torch.dtype) -> None:
    targets = {f"{name}.weight" for name in adapted_layers(config)}
    wanted: dict[str, PlannedTensor] = {}
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        pair = _quantized_pair(name.removesuffix(".weight"), shape)
        wanted |= pair if name in targets else {name: PlannedTensor(dtype, shape)}
    wanted |= _quantized_pair(_HEAD, (config.vocab_size, config.hidden_size))
    header = read_header(path)
    shapes = {name: stored.shape for name, stored in header.items()}
    check_shapes(shapes, {name: planned.shape for name, planned in wanted.items()}, lambda _: str(path))
    for name, planned in wanted.items():
        if _TYPES.get(header[name].dtype) != planned.dtype:
            raise CheckpointError(f"{path}: tensor {name} has type {header[name].dtype}, {planned.dtype} expected")


def _pack(model: Transformer, tensors: dict[str, torch.Tensor]) -> None:
    def weight_of(name: str) -> QuantizedWeight:
        return QuantizedWeight(tensors[f"{name}.int8"], tensors[f"{name}.scales"])

    def make(linear: AdaptedLinear) -> PackedLinear:
        return PackedLinear(linear.name, QuantizedMatrix(weight_of(linear.name)), linear.bias)

    replace_linears(model, make)
    model.packed_head = QuantizedMatrix(weight_of(_HEAD))


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
