"""Ways to multiply a few rows by a fixed weight on a CPU: ours, torch's own, and those of other packages.

Each way takes the weights of several like layers, [N, K] float32 each, and gives a function that multiplies rows
[M, K] by all of them. A way raises :class:`ImportError` when its package is not there; other exceptions say that the
package cannot do it here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from diffusion_core.model.packed import PackedMatrix
from diffusion_core.model.quantized import QuantizedMatrix, quantize_weight

Weights = list[torch.Tensor]
Multiply = Callable[[torch.Tensor], Any]
GROUP = 32


@dataclass(frozen=True)
class Way:
    """``bits`` a weight takes, group scales included; ``make`` prepares the weights."""

    name: str
    bits: float
    make: Callable[[Weights], Multiply]


def _plain(dtype: torch.dtype) -> Callable[[Weights], Multiply]:
    def make(weights: Weights) -> Multiply:
        kept = [weight.to(dtype) for weight in weights]
        return lambda x: [F.linear(x.to(dtype), weight) for weight in kept]

    return make


def _packed(dtype: torch.dtype) -> Callable[[Weights], Multiply]:
    def make(weights: Weights) -> Multiply:
        kept = [PackedMatrix(weight.to(dtype)) for weight in weights]
        return lambda x: [matrix.linear(x.to(dtype)) for matrix in kept]

    return make


def _ours(*, split: bool) -> Callable[[Weights], Multiply]:
    def make(weights: Weights) -> Multiply:
        kept = [QuantizedMatrix(quantize_weight(weight), split=split) for weight in weights]
        return lambda x: [matrix.linear(x) for matrix in kept]

    return make


def _weight_only_int8(weights: Weights) -> Multiply:
    kept = [quantize_weight(weight) for weight in weights]
    pairs = [(weight.values, weight.scales.bfloat16()) for weight in kept]
    return lambda x: [torch._weight_int8pack_mm(x, values, scales) for values, scales in pairs]


def to_4_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values 0 to 15 [N, K], scales and minima [N, K / GROUP]: the usual asymmetric groups."""
    groups = weight.view(weight.shape[0], -1, GROUP)
    low = groups.amin(-1)
    scales = ((groups.amax(-1) - low) / 15).clamp_min(1e-8)
    values = ((groups - low.unsqueeze(-1)) / scales.unsqueeze(-1)).round().clamp(0, 15).to(torch.uint8)
    return values.view_as(weight), scales, low


def _torch_4_bits(weights: Weights) -> Multiply:
    kept = []
    for weight in weights:
        values, scales, low = to_4_bits(weight)
        packed = torch._convert_weight_to_int4pack_for_cpu(values.int(), 1)
        # The kernel computes (value - 8) * scale + zero.
        both = torch.stack((scales, low + 8 * scales), dim=-1).transpose(0, 1).contiguous().bfloat16()
        kept.append((packed, both))
    return lambda x: [torch._weight_int4pack_mm_for_cpu(x, packed, GROUP, both) for packed, both in kept]


def _torch_dynamic_4_bits(weights: Weights) -> Multiply:
    kept = []
    for weight in weights:
        num_out, num_in = weight.shape
        groups = weight.view(num_out, -1, GROUP)
        scales = groups.abs().amax(-1).clamp_min(1e-8) / 7
        values = ((groups / scales.unsqueeze(-1)).round() + 8).clamp(0, 15).to(torch.uint8).view(num_out, num_in)
        pairs = values[:, 1::2] << 4 | values[:, ::2]
        packed = torch._dyn_quant_pack_4bit_weight(pairs, scales.bfloat16(), None, GROUP, num_in, num_out)
        kept.append((packed, num_in, num_out))
    return lambda x: [torch._dyn_quant_matmul_4bit(x.float(), packed, GROUP, i, o) for packed, i, o in kept]


def _torchao(name: str) -> Callable[[Weights], Multiply]:
    def make(weights: Weights) -> Multiply:
        from torchao import quantization

        kept = []
        for weight in weights:
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.bfloat16)
            layer.weight = torch.nn.Parameter(weight.bfloat16(), requires_grad=False)
            quantization.quantize_(layer, getattr(quantization, name)())
            kept.append(layer)
        return lambda x: [layer(x) for layer in kept]

    return make


def _onnx_runtime(bits: int) -> Callable[[Weights], Multiply]:
    def make(weights: Weights) -> Multiply:
        import numpy as np
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        num_out, num_in = weights[0].shape
        nodes, tensors, outputs = [], [], []
        for n, weight in enumerate(weights):
            groups = weight.view(num_out, -1, GROUP)
            scales = groups.abs().amax(-1).clamp_min(1e-8) / (2 ** (bits - 1) - 1)
            values = (groups / scales.unsqueeze(-1)).round() + 2 ** (bits - 1)
            values = values.clamp(0, 2**bits - 1).to(torch.uint8)
            blob = values if bits == 8 else values[..., 1::2] << 4 | values[..., ::2]
            tensors.append(numpy_helper.from_array(blob.numpy(), f"w{n}"))
            tensors.append(numpy_helper.from_array(scales.reshape(-1).numpy(), f"s{n}"))
            settings = {"K": num_in, "N": num_out, "bits": bits, "block_size": GROUP, "accuracy_level": 4}
            inputs = ["x", f"w{n}", f"s{n}"]
            nodes.append(helper.make_node("MatMulNBits", inputs, [f"y{n}"], domain="com.microsoft", **settings))
            nodes.append(helper.make_node("Slice", [f"y{n}", "from", "to", "axis"], [f"z{n}"]))
            outputs.append(helper.make_tensor_value_info(f"z{n}", TensorProto.FLOAT, ["M", 8]))
        for name, number in (("from", 0), ("to", 8), ("axis", 1)):
            tensors.append(numpy_helper.from_array(np.array([number], dtype=np.int64), name))
        rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", num_in])
        graph = helper.make_graph(nodes, "linears", [rows], outputs, tensors)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        file = io.BytesIO(model.SerializeToString())
        session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"x": x.float().numpy()})

    return make


def _openvino(bits: int) -> Callable[[Weights], Multiply]:
    def make(weights: Weights) -> Multiply:
        import numpy as np
        import openvino as ov
        from openvino import opset13 as ops

        num_out, num_in = weights[0].shape
        rows = ops.parameter([-1, num_in], np.float32)
        results = []
        for weight in weights:
            if bits == 8:
                quantized = quantize_weight(weight)
                constant = ops.constant(quantized.values.numpy(), dtype=np.int8)
                scales = quantized.scales.unsqueeze(1).numpy().astype(np.float16)
                wide = ops.multiply(ops.convert(constant, "f16"), ops.constant(scales))
            else:
                values, group_scales, low = to_4_bits(weight)
                pairs = (values[:, 1::2] << 4 | values[:, ::2]).contiguous().numpy()
                shape = [num_out, num_in // GROUP, GROUP]
                constant = ops.constant(ov.Tensor(pairs, ov.Shape(shape), ov.Type.u4), shared_memory=False)
                zeros = ops.constant((-low / group_scales).round().unsqueeze(-1).numpy().astype(np.float16))
                shifted = ops.subtract(ops.convert(constant, "f16"), zeros)
                scaled = ops.multiply(shifted, ops.constant(group_scales.unsqueeze(-1).numpy().astype(np.float16)))
                wide = ops.reshape(scaled, np.array([num_out, num_in]), special_zero=False)
            product = ops.matmul(rows, ops.convert(wide, "f32"), transpose_a=False, transpose_b=True)
            results.append(ops.slice(product, [0], [8], [1], [1]))
        settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
        compiled = ov.Core().compile_model(ov.Model(results, [rows]), "CPU", settings)
        request = compiled.create_infer_request()
        return lambda x: request.infer({0: x.float().numpy()}, share_inputs=True, share_outputs=True)

    return make


WAYS = (
    Way("torch bfloat16, plain", 16, _plain(torch.bfloat16)),
    Way("oneDNN float32, packed", 32, _packed(torch.float32)),
    Way("oneDNN bfloat16, packed", 16, _packed(torch.bfloat16)),
    Way("int8, ours", 8, _ours(split=True)),
    Way("int8, rows not split", 8, _ours(split=False)),
    Way("torch int8 weight only", 8, _weight_only_int8),
    Way("torch int4 weight only", 4 + 32 / GROUP, _torch_4_bits),
    Way("torch int4, dynamic rows", 4 + 16 / GROUP, _torch_dynamic_4_bits),
    Way("torchao int8, dynamic rows", 8, _torchao("Int8DynamicActivationInt8WeightConfig")),
    Way("torchao int8 weight only", 8, _torchao("Int8WeightOnlyConfig")),
    Way("ONNX Runtime int4", 4 + 32 / GROUP, _onnx_runtime(4)),
    Way("ONNX Runtime int8", 8 + 32 / GROUP, _onnx_runtime(8)),
    Way("OpenVINO int4", 4 + 32 / GROUP, _openvino(4)),
    Way("OpenVINO int8", 8, _openvino(8)),
)
