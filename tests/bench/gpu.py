"""The measurement of the engine on a GPU, prepared so that a quarter of an hour there is enough.

    python -m bench.gpu --data HumanEval.dev.jsonl.gz --seconds 400 --out OUT.json      # from tests/, or it on the path
    python -m bench.gpu --tiny --device cpu --seconds 60 --out OUT.json                 # the same without a GPU

Parts, the most telling first: bandwidth; single-stream tokens a second on HumanEval prompts by policy, and whether
`verified` is `autoregressive`; total tokens a second of an engine with 1 to 128 requests at once; milliseconds of a
round over 1 to 64 rows by kind of round; whether rows depend on their company; a profile by kernel; single matrix
products by rows. The file is written anew after each part; what no time was left for is in ``skipped``, what failed in
``errors``.

What it needs there: this working tree, torch with CUDA and Triton, numpy, tokenizers, safetensors, psutil, filelock,
platformdirs; to convert a GGUF file also gguf (small wheels of pure Python both). A machine that cannot download
anything gets the model in pieces (``bench/transport.py``), next to the tree, a piece at a time::

    python -m bench.transport cut ~/.cache/unmask checkpoints/qwen2.5-coder-0.5b --to out/pieces --piece-mib 24
    (491 MB of GGUF are 20 pieces; it is half of the converted copy, which is made there in seconds. With the drafter's
    31 MB moved aside and carried as a piece of its own, pieces of 56 MiB fit a limit of 64: 9 of them.)
    there, for each:   mkdir -p ~/pieces && mv out/pieces/* ~/pieces/
    there, at the end: PYTHONPATH=.:tests python3 -m bench.transport join ~/pieces --to ~/unmask
                       UNMASK_CACHE_DIR=~/unmask PYTHONPATH=.:tests python3 -m bench.gpu ...

Before the measurement, half a minute for the kernels against the reference (without the project's own settings of
pytest, which want plugins)::

    PYTHONPATH=.:tests python3 -m pytest -q -c /dev/null --rootdir . tests/model/test_round_triton.py \\
        tests/model/test_captured.py
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench.gpu_products import measure_products
from bench.gpu_rounds import compare_bits, measure_forwards, measure_slots, profile_rounds
from bench.gpu_texts import compare_texts, measure_crowds, measure_streams
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.checkpoints.packaged import find_packaged_drafter, find_packaged_tuning
from diffusion_core.config import DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.device import choose_device, choose_dtype
from diffusion_core.engine.loaded_model import LoadedModel, assemble
from diffusion_core.eval.bench.bandwidth import measure_bandwidth

TINY_PREFIXES = [f"def f{i}(a, b):\n    " for i in range(4)]


class Report:
    """The figures so far, on disk after each part, and the time that is left."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._end = path, time.monotonic() + seconds
        self.found: dict[str, Any] = {"skipped": [], "errors": {}, "seconds": {}}

    def has_time(self) -> bool:
        """Whether the budget is not spent."""
        return time.monotonic() < self._end

    def run(self, name: str, part: Callable[[], Any]) -> Any:
        """Run a part, unless time is up. A part that fails is recorded: the others are worth having without it."""
        if not self.has_time():
            self.found["skipped"].append(name)
            result = None
        else:
            started = time.monotonic()
            try:
                result = self.found[name] = part()
            except Exception:
                result = None
                self.found["errors"][name] = traceback.format_exc()
            self.found["seconds"][name] = time.monotonic() - started
        self._path.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(result)[:1500], flush=True)
        return result


def describe(model: LoadedModel, device: torch.device) -> dict[str, Any]:
    """What was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    denoiser = model.denoiser
    return {
        "device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "model": model.name,
        "dtype": str(denoiser.model.dtype), "weights_bytes": denoiser.model.num_bytes,
        "drafter": denoiser.contract.drafter.value,
    }  # fmt: skip


def read_prefixes(path: Path | None, limit: int) -> list[str]:
    """Prompts of a HumanEval file, spread over it; without one a few lines that a tiny model is good enough for."""
    if path is None:
        return TINY_PREFIXES
    with gzip.open(path, "rt", encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in file]
    return prompts[:: max(1, len(prompts) // limit)][:limit]


def measure(report: Report, config: EngineConfig, args: argparse.Namespace) -> None:
    """All parts."""
    device = choose_device(config)
    drafter = Path(args.drafter) if args.drafter not in ("auto", "none") else None
    if args.drafter == "auto":
        drafter = find_packaged_drafter(config.model)
    # As the engine loads it: the drafter has learned from the base with its tuning.
    checkpoint = load_checkpoint(
        config.model,
        dtype=choose_dtype(config, device),
        device=device,
        drafter=drafter,
        tuning=find_packaged_tuning(config.model),
    )
    model = assemble(checkpoint, replace(config, capture="off"))
    prefixes = read_prefixes(args.data, args.prompts)
    report.run("machine", lambda: describe(model, device))
    copied = report.run("bandwidth", lambda: measure_bandwidth(device).fields())
    speed = copied["copy_gb_per_second"] if copied else float("nan")
    answers: dict[str, list[dict[str, Any]]] = {}

    def streams() -> dict[str, Any]:
        table, rows = measure_streams(model, prefixes, args.max_tokens, report.has_time)
        answers.update(rows)
        return table

    report.run("streams", streams)
    report.run("equality", lambda: compare_texts(answers))
    report.run("crowds", lambda: measure_crowds(config, prefixes, args.crowds, args.crowd_tokens, report.has_time))
    report.run("forwards", lambda: measure_forwards(model, speed, args.repeats, report.has_time))
    report.run("bits", lambda: compare_bits(model, (250, 500)))
    report.run("profile", lambda: profile_rounds(model))
    report.run("slots", lambda: measure_slots(model, args.repeats))
    report.run("products", lambda: measure_products(model, speed, args.repeats, report.has_time))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--tiny", action="store_true", help="a random model made here, to try the measurement itself")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--drafter", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--crowds", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--crowd-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    report = Report(args.out, args.seconds)
    with tempfile.TemporaryDirectory() as folder:
        name = str(save_tiny_checkpoint(Path(folder) / "model")) if args.tiny else args.model
        config = EngineConfig(
            model=name, edit_model=name, drafter=args.drafter, device=args.device, dtype=args.dtype,
            max_context_tokens=2048,
        )  # fmt: skip
        measure(report, config, args)


if __name__ == "__main__":
    main()
