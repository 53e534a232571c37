"""How often bounds prove that the best token lies in a small part of the vocabulary, and what they would read.

    python -m bench.head_bounds --data FILE.jsonl.gz --limit 40 --out OUT.json

A head over the tokens that are common in code is exact only if no other token can score higher. For the hidden states
of real prompts this counts, for several bounds on the other tokens' scores, the rows for which the bound proves it
and the candidates that are left where it does not:

``subspace k``: the score in the first k principal directions of the hidden states, plus the product of the norms of
what lies outside (Cauchy-Schwarz). ``8 bits`` and ``4 bits``: the score with rounded weights (one scale a row; one for
32 entries), plus the norm of the rounding error times the norm of the state. The part is the first ids: byte pairs
were merged in the order of their frequency.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from bench.answers import load_model

from diffusion_core.config import DEFAULT_MODEL
from diffusion_core.eval.dataset import read_dataset
from diffusion_core.eval.infilling import InfillingOptions, InfillingTask, make_infilling
from diffusion_core.sampling.sequence import SequenceCache

SUBSPACES = (64, 128, 256, 512)
_CHUNK = 128


def collect_states(model: Any, data: Path, limit: int) -> torch.Tensor:
    """Final hidden states, float32 [N, D], of the ends of prompts."""
    made = make_infilling(read_dataset(data), InfillingOptions(), limit, 0)
    states = []
    for task in made.tasks:
        if isinstance(task, InfillingTask):
            tokens = model.encoder.encode_text(task.prompt)[-128:]
            cache = SequenceCache.create(model.denoiser, len(tokens))
            states.append(model.denoiser.evaluate(cache.base, tokens)[len(tokens) // 2 :].float())
    return torch.cat(states)


def count_left(upper: torch.Tensor, best: torch.Tensor) -> tuple[float, float]:
    """Share of rows whose ``upper`` bounds [N, V] all lie under ``best`` [N], and the mean number that do not."""
    left = (upper >= best.unsqueeze(1)).sum(1).float()
    return float((left == 0).float().mean()), float(left.mean())


def round_weight(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """``weight`` [V, D] rounded to ``bits`` with one scale for ``group`` entries of a row."""
    limit = 2 ** (bits - 1) - 1
    grouped = weight.view(len(weight), -1, group)
    scales = grouped.abs().amax(-1, keepdim=True) / limit + 1e-30
    rounded: torch.Tensor = (grouped / scales).round() * scales
    return rounded.view_as(weight)


@torch.inference_mode()
def measure(states: torch.Tensor, weight: torch.Tensor, part: int) -> dict[str, Any]:
    """Shares and candidates of every bound; ``weight`` float32 [V, D]."""
    moments = states.T @ states
    directions = torch.linalg.eigh(moments).eigenvectors.flip(1)  # the largest first
    in_part = weight[:part]
    others = weight[part:]
    best = (states @ in_part.T).amax(1)
    outside = float(((states @ others.T).amax(1) > best).float().mean())
    report: dict[str, Any] = {"rows": len(states), "part": part, "vocabulary": len(weight), "best_is_outside": outside}
    norms = states.norm(dim=1, keepdim=True)
    bounds = {}
    for size in SUBSPACES:
        basis = directions[:, :size]
        rest = (states - states @ basis @ basis.T).norm(dim=1, keepdim=True)
        bounds[f"subspace {size}"] = ((others @ basis) @ basis.T, rest, (others - others @ basis @ basis.T).norm(dim=1))
    for bits, group in ((8, weight.shape[1]), (4, 32)):
        rounded = round_weight(others, bits, group)
        bounds[f"{bits} bits"] = (rounded, norms, (others - rounded).norm(dim=1))
    for name, (near, rest, error) in bounds.items():
        proven, left = zip(
            *(
                count_left(states[i : i + _CHUNK] @ near.T + rest[i : i + _CHUNK] * error, best[i : i + _CHUNK])
                for i in range(0, len(states) - _CHUNK + 1, _CHUNK)
            ),
            strict=True,
        )
        report[name] = {"proven": sum(proven) / len(proven), "candidates_left": sum(left) / len(left)}
    return report


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--parts", nargs="+", type=int, default=[16_384, 32_768, 65_536])
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    model = load_model(args.model, "bfloat16")
    states = collect_states(model, args.data, args.limit)
    weight = model.denoiser.model.head_weight.float()
    reports = [measure(states, weight, part) for part in args.parts]
    args.out.write_text(json.dumps(reports, indent=1), encoding="utf-8")
    print(json.dumps(reports, indent=1))


if __name__ == "__main__":
    main()
