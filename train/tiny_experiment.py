"""The paper's stages on the synthetic grammar, compared: ``python -m train.tiny_experiment``. Minutes on two CPU cores.

After every stage the served checkpoint answers held-out prompts with the ``confidence`` policy and repairs spoiled
blocks. Two controls tell what a stage is worth: as many plain steps as the order stage has, from the same checkpoint,
and the on-policy stage with the length minimised directly, which the paper found less stable.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.sampling.evaluate import Denoiser
from train.config import TrainConfig
from train.metrics import STEP, read_metrics
from train.objectives.evaluation import evaluate_answers, evaluate_repairs
from train.objectives.sources import GrammarSource
from train.recipes import Stage, tiny_stages
from train.run import RunOptions, run_plan
from train.trainer import CHECKPOINT_FOLDER

NUM_HELD_OUT = 256
STAGE_NAMES = ("mask_stage", "edit_stage", "order_distill", "on_policy")


def seeded_stages(seed: int = 0) -> list[Stage]:
    """The four stages of the recipe ``tiny_cpu``, without evaluations in between."""
    configs = [
        replace(config, seed=seed, budget=replace(config.budget, evaluate_every=0, log_every=1))
        for config in tiny_stages()
    ]
    return [Stage(name=config.objective, config=config, time_share=0.25) for config in configs]


def control_stages(stages: list[Stage], out: Path) -> dict[str, TrainConfig]:
    """``plain_steps``: the edit stage goes on for as long as the order stage; ``direct_length``: the ablation."""
    _, _edit, order, policy = (stage.config for stage in stages)
    plain = replace(order, objective="edit_stage", model=replace(order.model, base=str(_checkpoint(out, 1))))
    direct = replace(
        policy,
        on_policy=replace(policy.on_policy, length="direct"),
        model=replace(policy.model, base=str(_checkpoint(out, 2))),
    )
    return {"plain_steps": plain, "direct_length": direct}


def _checkpoint(out: Path, number: int) -> Path:
    return out / f"{number + 1}-{STAGE_NAMES[number]}" / CHECKPOINT_FOLDER


def measure(checkpoint: Path, num_held_out: int = NUM_HELD_OUT, seed: int = 0) -> dict[str, float]:
    """Exact match, denoising steps and repairs of a served checkpoint on held-out grammar samples."""
    loaded = load_checkpoint(str(checkpoint), dtype=torch.float32, device=torch.device("cpu"))
    denoiser = Denoiser(loaded.model, loaded.diffusion_config)
    source = GrammarSource(loaded.tokenizer, loaded.diffusion_config, sequences=1, seed=seed, is_held_out=True)
    samples = [source.sample(number) for number in range(num_held_out)]
    answers = evaluate_answers(denoiser, loaded.tokenizer, samples, source.stop_id)
    repairs = evaluate_repairs(denoiser, samples, source.stop_id, torch.Generator().manual_seed(seed))
    return answers | repairs


def stability(folder: Path) -> dict[str, float]:
    """How an on-policy run went: the lowest share of right rollouts over ten steps, and the spread of its gradients."""
    steps = [record for record in read_metrics(folder) if record["kind"] == STEP]
    right = [float(record["verifier"]) for record in steps if "verifier" in record]
    norms = torch.tensor([float(record["grad_norm"]) for record in steps if "grad_norm" in record])
    windows = [sum(right[i : i + 10]) / 10 for i in range(max(1, len(right) - 9))]
    spread = float(norms.std() / norms.mean()) if len(norms) > 1 else 0.0
    return {"lowest_verifier": min(windows), "gradient_norm_spread": spread}


def run_experiment(
    out: Path, *, seed: int = 0, num_threads: int = 0, with_controls: bool = True, console: Console | None = None
) -> dict[str, Any]:
    """Train all stages into ``out`` and measure each; returns the figures that :func:`main` prints as JSON."""
    console = console or Console(quiet=True)
    started = time.monotonic()

    def options(folder: Path) -> RunOptions:
        return RunOptions(out=folder, device="cpu", num_threads=num_threads, with_report=False, started=started)

    stages = seeded_stages(seed)
    run_plan(stages, options(out), console)
    found: dict[str, Any] = {"seed": seed, "stages": {}, "controls": {}}
    for number, name in enumerate(STAGE_NAMES):
        found["stages"][name] = measure(_checkpoint(out, number), seed=seed)
    if with_controls:
        for name, config in control_stages(stages, out).items():
            run_plan([Stage(name=name, config=config, time_share=1.0)], options(out / name), console)
            found["controls"][name] = measure(out / name / CHECKPOINT_FOLDER, seed=seed)
        found["controls"]["direct_length"] |= stability(out / "direct_length")
        found["stages"]["on_policy"] |= stability(_checkpoint(out, 3).parent)
    found["seconds"] = round(time.monotonic() - started, 1)
    return found | judge(found["stages"])


def judge(stages: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The claims that the figures have to bear out."""
    exact = [stages[name]["exact_match"] for name in STAGE_NAMES]
    first, last = stages[STAGE_NAMES[0]], stages[STAGE_NAMES[-1]]
    return {
        "no_stage_is_worse": all(later >= earlier for earlier, later in itertools.pairwise(exact)),
        "times_fewer_steps": first["steps"] / last["steps"],
        "times_more_repairs": stages["edit_stage"]["repaired"] / max(first["repaired"], 1 / first["num_wrong"]),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and print its figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m train.tiny_experiment", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--out", type=Path, help="folder for the runs (default: a temporary one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    parser.add_argument("--no-controls", action="store_true", help="only the four stages")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="unmask-tiny-") as temporary:
        found = run_experiment(
            chosen.out or Path(temporary),
            seed=chosen.seed,
            num_threads=chosen.threads,
            with_controls=not chosen.no_controls,
            console=Console(file=sys.stderr),
        )
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
