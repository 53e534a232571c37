"""What evaluates decoding rounds on a device: the whole round as one kernel, fused steps, or torch's own operations."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import torch

from diffusion_core.kernels.cuda_program import Kernel, compile_program
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.joined import join_products
from diffusion_core.model.kernel_shape import THREADS, Arguments, KernelShape, choose_shapes
from diffusion_core.model.layers import AdaptedLinear, TransformerLayer
from diffusion_core.model.round_ops import PlainOps, RoundOps
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_forward import WholeForward
from diffusion_core.model.whole_round import Launch, WholeRound, packed_bytes

# Matrix instructions of bfloat16, and the loads that kernels use.
_LEAST_CAPABILITY = (8, 0)

logger = logging.getLogger(__name__)


def choose_steps(model: Transformer, adapter: GatedAdapter | None) -> RoundOps:
    """Fused steps where that is possible, else the reference."""
    if model.device.type != "cuda" or find_spec("triton") is None:
        return PlainOps()
    from diffusion_core.model.round_triton import TritonOps, supports

    if not supports(model.config):
        return PlainOps()
    return TritonOps(join_products(model, adapter) if adapter is not None else None)


def choose_whole(model: Transformer, adapter: GatedAdapter | None, *, max_positions: int) -> WholeForward | None:
    """Rounds as one kernel, compared with the reference; None where that cannot be: the log says why.

    ``max_positions`` bounds a sequence with its draft.
    """
    if model.device.type != "cuda":
        return None
    device = torch.cuda.get_device_properties(model.device)
    shapes = choose_shapes(
        model.config,
        rank=0 if adapter is None else adapter.rank,
        blocks=device.multi_processor_count,
        shared_limit=getattr(device, "shared_memory_per_block_optin", 48 * 1024),
    )

    def build(shape: KernelShape) -> Launch:
        with torch.cuda.device(model.device):
            code = compile_program("round.cu", shape.defines(), (device.major, device.minor))
            kernel = Kernel(
                code, "decoding_round", num_blocks=shape.blocks, num_threads=THREADS, shared_bytes=shape.shared_bytes
            )

        def launch(arguments: Arguments) -> None:
            kernel.launch(arguments, torch.cuda.current_stream(model.device).cuda_stream)

        return launch

    free = torch.cuda.mem_get_info(model.device)[0]
    if reason := why_not_whole(model, (device.major, device.minor), bool(shapes), free):
        logger.info("rounds run step by step: %s", reason)
        return None
    try:
        whole = WholeRound(model, adapter, max_positions=max_positions, shapes=shapes, build=build)
        forward = WholeForward(model, adapter, whole, max_positions=max_positions)
        forward.prepare()
        return forward if forward.agrees() else None
    except Exception:
        # Whatever the compiler or the driver does not like: there are other ways, and no request has to fail for it.
        logger.warning("rounds cannot be one kernel here: decoding goes on without it", exc_info=True)
        return None


def why_not_whole(model: Transformer, capability: tuple[int, int], has_shapes: bool, free_bytes: int) -> str:
    """Empty where the whole round can be one kernel."""
    layers = [layer for layer in model.layers if isinstance(layer, TransformerLayer)]
    linears = [
        linear for layer in layers
        for linear in (layer.attention.qkv_proj, layer.attention.o_proj, layer.mlp.gate_up_proj, layer.mlp.down_proj)
    ]  # fmt: skip
    if capability < _LEAST_CAPABILITY:
        return f"the device's compute capability is below {_LEAST_CAPABILITY[0]}.{_LEAST_CAPABILITY[1]}"
    if model.dtype != torch.bfloat16 or not all(type(linear) is AdaptedLinear for linear in linears):
        return "its weights are not plain bfloat16"
    if not has_shapes:
        return "the model's sizes do not suit the kernel"
    if packed_bytes(model) > free_bytes // 2:
        return "the device has no room for a second copy of the layers' weights"
    return ""
