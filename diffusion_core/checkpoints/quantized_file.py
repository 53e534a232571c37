"""The quantised forms of a checkpoint's weights: a file that is written once and packed when a model is loaded.

``model.int8.safetensors`` holds, for every linear layer, ``NAME.int8`` [out, in] and ``NAME.scales`` float32 [out];
``model.int4.safetensors`` has ``NAME.int4`` uint8 [out, in / 2] and ``NAME.groups`` bfloat16 [out, in / G, 2] instead
(int4.py). The output head is there in 8 bits as ``head`` in both. Everything else is plain, under its own name and in
the dtype of the activations: the embedding, whose single rows are read where it is mapped, so that on a CPU its size
costs disk and no memory, and the plain head, which only devices without exact products of 8 bits multiply.

Writing streams pieces of a few megabytes, and reading takes one layer at a time: neither ever holds a model in floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from diffusion_core.checkpoints.layout import build_empty
from diffusion_core.checkpoints.safetensors_file import ITEM_TYPES, PlannedTensor, read_header
from diffusion_core.checkpoints.weights import Target, check_shapes
from diffusion_core.errors import CheckpointError
from diffusion_core.model.adapter import adapted_layers
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.int4 import Int4Weight, check_inputs, quantize_int4
from diffusion_core.model.layers import AdaptedLinear
from diffusion_core.model.output_head import pack_head, quantized_head
from diffusion_core.model.packed import PackedLinear, can_pack, replace_linears, serving_matrix
from diffusion_core.model.quantization import GROUP_SIZE, Quantization
from diffusion_core.model.quantized import QuantizedWeight, quantize_weight, why_not_eight_bits
from diffusion_core.model.transformer import Transformer

WEIGHTS_FILES = {kind: f"model.{kind.value}.safetensors" for kind in (Quantization.INT8, Quantization.INT4)}
_HEAD = "head"

Pieces = Iterator[torch.Tensor]


def quantized_layout(
    config: ModelConfig, targets: list[Target], dtype: torch.dtype, kind: Quantization
) -> dict[str, PlannedTensor]:
    """Every tensor of the file in order, from the plan of the plain ones (weights.py).

    Raises:
        CheckpointError: a layer cannot be held in this form.
    """
    layers = adapted_layers(config)
    layout: dict[str, PlannedTensor] = {}
    for target in targets:
        layer = target.name.removesuffix(".weight")
        if layer in layers:
            layout |= _pair(layer, target.shape, kind)
        else:
            layout[target.name] = PlannedTensor(dtype, target.shape)
    return layout | _pair(_HEAD, (config.vocab_size, config.hidden_size), Quantization.INT8)


def _pair(name: str, shape: tuple[int, ...], kind: Quantization) -> dict[str, PlannedTensor]:
    """What stands for one weight: its numbers and its scales."""
    num_out, num_in = shape
    if kind is Quantization.INT8:
        return {
            f"{name}.int8": PlannedTensor(torch.int8, (num_out, num_in)),
            f"{name}.scales": PlannedTensor(torch.float32, (num_out,)),
        }
    check_inputs(num_in, name)
    return {
        f"{name}.int4": PlannedTensor(torch.uint8, (num_out, num_in // 2)),
        f"{name}.groups": PlannedTensor(torch.bfloat16, (num_out, num_in // GROUP_SIZE, 2)),
    }


def quantize_targets(
    config: ModelConfig, targets: list[Target], read: Callable[[Target], Pieces], kind: Quantization
) -> Iterator[tuple[str, Pieces]]:
    """The tensors of :func:`quantized_layout` in its order; ``read`` gives a target's rows in float32, in pieces."""
    layers = adapted_layers(config)
    for target in targets:
        layer = target.name.removesuffix(".weight")
        if layer in layers:
            yield from _quantize_pieces(layer, read(target), kind)
        else:
            yield target.name, read(target)
    head = "embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    whole = read(next(target for target in targets if target.name == head))
    yield from _quantize_pieces(_HEAD, whole, Quantization.INT8)


def _quantize_pieces(name: str, pieces: Pieces, kind: Quantization) -> Iterator[tuple[str, Pieces]]:
    """Numbers are handed on piece by piece; the scales, a small part of them, are kept until these are through."""
    kept: list[torch.Tensor] = []

    def numbers() -> Pieces:
        for piece in pieces:
            if kind is Quantization.INT4:
                narrow = quantize_int4(piece)
                kept.append(narrow.groups)
                yield narrow.values
            else:
                quantized = quantize_weight(piece)
                kept.append(quantized.scales)
                yield quantized.values

    first, second = _pair(name, (1, GROUP_SIZE), kind)
    yield first, numbers()
    yield second, iter(kept)


def load_quantized(
    path: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device, kind: Quantization
) -> Transformer:
    """A Transformer for serving from the file at ``path``; ``dtype`` is that of the activations.

    Raises:
        CheckpointError: a tensor is missing, unexpected, damaged or of another shape or type; it is named.
    """
    model = build_empty(config)
    _check(path, config, model, dtype, kind)

    def make(linear: AdaptedLinear) -> PackedLinear:
        weight = _read_weight(path, linear.name, device, kind)
        return PackedLinear(linear.name, serving_matrix(weight, linear.name), linear.bias)

    replace_linears(model, make)
    if device.type == "cpu" and not why_not_eight_bits("cpu"):
        head = _read_weight(path, _HEAD, device, Quantization.INT8)
        assert isinstance(head, QuantizedWeight)
        model.packed_head = quantized_head(head)
    tensors = _read(path, list(model.state_dict()), device)
    model.load_state_dict(tensors, assign=True)
    model.prepare_native()
    if model.packed_head is None and can_pack(device, dtype):
        model.packed_head = pack_head(model.head_weight, kind)
    return model


def _check(path: Path, config: ModelConfig, model: Transformer, dtype: torch.dtype, kind: Quantization) -> None:
    layers = adapted_layers(config)
    wanted: dict[str, PlannedTensor] = {}
    for name, tensor in model.state_dict().items():
        layer, shape = name.removesuffix(".weight"), tuple(tensor.shape)
        is_quantized = layer in layers and name != layer
        wanted |= _pair(layer, shape, kind) if is_quantized else {name: PlannedTensor(dtype, shape)}
    wanted |= _pair(_HEAD, (config.vocab_size, config.hidden_size), Quantization.INT8)
    header = read_header(path)
    shapes = {name: stored.shape for name, stored in header.items()}
    check_shapes(shapes, {name: planned.shape for name, planned in wanted.items()}, lambda _: str(path))
    for name, planned in wanted.items():
        if ITEM_TYPES.get(header[name].dtype) != str(planned.dtype).removeprefix("torch."):
            raise CheckpointError(f"{path}: tensor {name} has type {header[name].dtype}, {planned.dtype} expected")


def _read_weight(path: Path, name: str, device: torch.device, kind: Quantization) -> QuantizedWeight | Int4Weight:
    """One weight. On a CPU it is a mapping of its own, which goes with it: what was packed is not held twice."""
    names = list(_pair(name, (1, GROUP_SIZE), kind))
    tensors = _read(path, names, device)
    first, second = (tensors[found] for found in names)
    return Int4Weight(first, second) if kind is Quantization.INT4 else QuantizedWeight(first, second)


def _read(path: Path, names: list[str], device: torch.device) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
