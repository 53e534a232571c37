"""The curve of `confidence`: pass@1 over tokens per forward, one point for each tau; `verified` stands beside it.

    python -m bench.confidence --data FILE.jsonl.gz --drafter FOLDER --limit 100 --plot CURVE.png --out OUT.json

Every item is decoded with each tau on the same prompt and scored by its tests in the sandbox. No free drafts are
used: the figures are those of the denoising alone.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from bench.answers import add_arguments, decode, load, passes, read_items, summarise
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffusion_core.requests import DecodingParams, Policy
from diffusion_core.sampling.rounds import RoundShape

TAUS = (1.0, 0.95, 0.9, 0.8, 0.65, 0.5)


def draw(table: dict[str, Any], path: Path) -> None:
    """The curve as a picture."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [(row["tokens_per_forward"], row["pass_at_1"], name) for name, row in table.items()]
    curve = [point for point in points if point[2] != "verified"]
    axes.plot([x for x, _, _ in curve], [y for _, y, _ in curve], "o-", label="confidence, by tau")
    for x, y, name in curve:
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(4, 6), fontsize=8)
    for x, y, name in points:
        if name == "verified":
            axes.plot([x], [y], "s", label="verified (lossless)")
    axes.set_xlabel("tokens per forward")
    axes.set_ylabel("pass@1")
    axes.set_ylim(0, 1)
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run over a data file, print the table and draw the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--taus", nargs="+", type=float, default=list(TAUS))
    parser.add_argument("--tau-low", type=float, default=0.1)
    parser.add_argument("--plot", type=Path, default=None)
    args = parser.parse_args()
    model = load(args)
    ways = {"verified": DecodingParams(policy=Policy.VERIFIED, block_size=args.block_size)}
    for tau in args.taus:
        ways[f"{tau:g}"] = DecodingParams(
            policy=Policy.CONFIDENCE, tau=tau, tau_low=args.tau_low, block_size=args.block_size
        )
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for item in read_items(model, args):
        verdicts: dict[str, bool] = {}
        for name, params in ways.items():
            row = decode(model, item, params, use_free=False, shape=RoundShape.ALL_LENGTHS, max_tokens=args.max_tokens)
            if row["text"] not in verdicts:
                verdicts[row["text"]] = passes(item.task, row["text"])
            rows[name].append(row | {"passed": verdicts[row["text"]]})
    table = {name: summarise(answers) for name, answers in rows.items()}
    args.out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))
    if args.plot:
        draw(table, args.plot)


if __name__ == "__main__":
    main()
