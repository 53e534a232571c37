"""Matrix products of a few rows on a device: time by rows, and for which numbers of rows a row has the same bits.

Two questions for the next version of captured rounds. Which numbers of rows share their bits in torch's own product:
then rounds of those sizes are exact together, not only rounds of one size. And whether a plain kernel of tiles of 16
rows (``product_kernel.py``), whose rows are independent by construction, is as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from bench.gpu_rounds import time_rounds

from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.model.captured import ROW_BUCKETS
from diffusion_core.model.layers import TransformerLayer

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Columns of a tile, values of the sum at a time, warps, stages.
TILES = ((16, 128, 4, 4), (32, 128, 4, 4), (64, 128, 4, 4))


def matrices(model: LoadedModel) -> dict[str, list[torch.Tensor]]:
    """The weights of all layers by kind, and the output head: in turn, as a forward reads them, not out of a cache."""
    transformer = model.denoiser.model
    layers = [layer for layer in transformer.layers if isinstance(layer, TransformerLayer)]
    found: dict[str, list[torch.Tensor]] = {
        "qkv": [layer.attention.qkv_proj.weight for layer in layers],
        "o": [layer.attention.o_proj.weight for layer in layers],
        "gate_up": [layer.mlp.gate_up_proj.weight for layer in layers],
        "down": [layer.mlp.down_proj.weight for layer in layers],
        "head": [transformer.head_weight],
    }
    return found


def candidates(device: torch.device) -> dict[str, Product]:
    """Products by name; tiled ones where Triton is there for the device."""
    found: dict[str, Product] = {"torch": F.linear}
    if device.type == "cuda" and find_spec("triton") is not None:
        from bench.product_kernel import tiled_product

        found |= {f"tiles {tile}": tiled_product(tile) for tile in TILES}
    return found


def replayed(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """``run`` without the time that launching its kernels takes: captured, where the device can do that."""
    if device.type != "cuda":
        return run
    aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(aside):
        for _ in range(2):
            run()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


@torch.inference_mode()
def measure_products(model: LoadedModel, gb_per_s: float, repeats: int, has_time: Callable[[], bool]) -> dict[str, Any]:
    """By kind of matrix: microseconds of one product by rows, the limit by bandwidth, rows whose bits agree."""
    transformer, found = model.denoiser.model, dict[str, Any]()
    device, dtype = transformer.device, transformer.dtype
    for kind, weights in matrices(model).items():
        num_bytes = weights[0].numel() * weights[0].element_size()
        found[kind] = {"shape": list(weights[0].shape), "limit_us": num_bytes / gb_per_s / 1e3}
        x = torch.randn(max(ROW_BUCKETS), weights[0].shape[1], device=device).to(dtype)
        for name, product in candidates(device).items():
            if not has_time():
                return found
            times: dict[str, float] = {}
            for rows in ROW_BUCKETS:
                part = x[:rows].contiguous()

                def run(part: torch.Tensor = part, product: Product = product) -> None:
                    for weight in weights:  # noqa: B023 - called within this turn
                        product(part, weight)

                spent = time_rounds(replayed(run, device), device, repeats)["in_a_row_ms"]
                times[str(rows)] = spent * 1000 / len(weights)
            found[kind][name] = {"us": times, "bits": bits_by_rows(product, x, weights[0])}
    return found


def bits_by_rows(product: Product, x: torch.Tensor, weight: torch.Tensor) -> dict[str, Any]:
    """For each number of rows, whether a row has the bits that it has among all rows; and whether its place matters."""
    whole = product(x, weight)
    turned = product(x.roll(5, 0), weight).roll(-5, 0)
    same = {str(n): bool(torch.equal(product(x[:n].contiguous(), weight), whole[:n])) for n in ROW_BUCKETS}
    error = (whole.float() - x.float() @ weight.float().T).norm() / whole.float().norm()
    return {"as_among_all": same, "at_any_place": bool(torch.equal(turned, whole)), "error": float(error)}
