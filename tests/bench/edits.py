"""Instruction edits: pass@1, tokens per forward, and whether transformers' greedy decoding gives the same answer.

    python -m bench.edits --data CanItEdit.dev.jsonl.gz --model qwen2.5-coder-1.5b --dtype float32 --reference --out OUT

Each item is asked with its descriptive and its lazy instruction, decoded with `verified` from the selection's own text,
and scored by its tests in the sandbox. ``--reference`` runs prompt and answer through transformers' model in one
forward: its greedy decoding gives this very answer exactly when its best token after each position is the next one;
where it is not, the gap between its best logit and ours is recorded, and its answer is followed: from its own token on
our decoder goes on, until its greedy choice agrees with every token. Lines are appended; a second run goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from bench.answers import load_model
from bench.exactness import check_reference
from bench.reference_model import load_reference_of

from diffusion_core.config import EngineConfig
from diffusion_core.engine.job import Job
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.eval.dataset import read_dataset
from diffusion_core.eval.editing import EditingOptions, EditingTask, make_editing
from diffusion_core.eval.sandbox import run_program
from diffusion_core.requests import EditRequest, FinishReason
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.drafts import LookupDraft
from diffusion_core.sampling.sequence import DecodingSequence
from diffusion_core.sampling.stop import FenceRule


def answer(model: LoadedModel, task: EditingTask, reference: Any) -> dict[str, Any]:
    """Decode one edit as the engine does."""
    request = task.make_request()
    job = Job(request)
    job.loading = Future()
    budget = min(2 * len(model.encoder.encode_text(request.selection)) + 256, EngineConfig().max_edit_tokens)
    started = time.perf_counter()
    job.prepare(model, budget)
    job.begin(model, "")
    is_complete = job.resume()
    while not is_complete:
        assert job.want is not None
        is_complete = job.resume(job.want.alone())
    sequence = job.sequence
    assert sequence is not None
    tokens, num_prompt = list(sequence.tokens), sequence.num_prompt
    job.finish()
    result = job.future.result()
    row: dict[str, Any] = {
        "text": result.text, "reason": result.finish_reason, "nfe": result.num_forwards, "tokens": result.num_tokens,
        "prompt_tokens": num_prompt, "seconds": time.perf_counter() - started,
    }  # fmt: skip
    if reference is not None:
        prompt, answered = tokens[:num_prompt], tokens[num_prompt : num_prompt + result.num_tokens]
        row["reference"] = check_reference(reference, prompt, answered)
        if not row["reference"]["same"]:
            row["reference_text"] = follow_reference(model, request, reference, prompt, answered, budget)
    return row


def follow_reference(
    model: LoadedModel, request: EditRequest, reference: Any, prompt: list[int], answered: list[int], budget: int
) -> str:
    """transformers' own greedy answer: at each token where it decides otherwise, its token is taken."""
    while not (found := check_reference(reference, prompt, answered))["same"]:
        forced = [*answered[: found["index"]], found["token"]]
        cache, _ = model.prefix_cache.take(prompt + forced, budget)
        sequence = DecodingSequence(model.denoiser, prompt + forced, cache, num_prompt=len(prompt + forced))
        fence = model.encoder.format.fence
        task = DecodingTask(
            max_tokens=max(1, budget - len(forced)),
            stop_rules=(FenceRule(fence(request)),) if fence else (),
            stop_token_ids=model.stop_token_ids, banned_token_ids=model.banned_token_ids,
        )  # fmt: skip
        decoder = BlockDecoder(model.denoiser, model.tokenizer, sequence, task, [LookupDraft(prompt + forced)])
        for _ in decoder.run():
            pass
        answered = forced + sequence.answer[: decoder.answer.num_tokens]
    text: str = model.tokenizer.decode(answered, skip_special_tokens=True)
    if fence := model.encoder.format.fence:
        text = text.split("\n" + fence(request), maxsplit=1)[0] + "\n"
    return text


def main() -> None:
    """Run over a data file, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many tasks of the file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "int8"], default="bfloat16")
    parser.add_argument("--tuning", type=Path, default=None, help="an edit tuning's folder, merged into the model")
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    model = load_model(args.model, args.dtype, tuning=args.tuning)
    reference = load_reference_of(args.model, model.denoiser.model.dtype) if args.reference else None
    benchmark = make_editing(read_dataset(args.data), EditingOptions(), args.limit, args.seed)
    done = {json.loads(line)["task_id"] for line in args.out.open()} if args.out.exists() else set()
    with args.out.open("a", encoding="utf-8") as out:
        for task in benchmark.tasks[args.skip :]:
            assert isinstance(task, EditingTask)
            if task.task_id in done:
                continue
            row: dict[str, Any] = {"task_id": task.task_id, **task.facts}
            row["supported"] = asyncio.run(run_program(task.render_reference())).passed
            row |= answer(model, task, reference)
            row["passed"] = asyncio.run(run_program(task.render_program(row["text"]))).passed
            theirs = row.get("reference_text", row["text"])
            row["reference_passed"] = asyncio.run(run_program(task.render_program(theirs))).passed
            out.write(json.dumps(row) + "\n")
            out.flush()
    summarise(args.out)


def summarise(path: Path) -> None:
    """Print what the table in EXPERIMENTS.md holds."""
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    for kind in ("descriptive", "lazy"):
        scored = [row for row in rows if row["kind"] == kind and row["supported"]]
        if scored:
            passed = sum(row["passed"] for row in scored)
            print(f"{kind}: {passed} of {len(scored)} pass, pass@1 {passed / len(scored):.3f}")
            if "reference" in scored[0]:
                print(f"  transformers' greedy: {sum(row['reference_passed'] for row in scored)} pass")
    for name, part in (("all", rows), ("under 20 % of lines changed", [r for r in rows if r["changed_lines"] < 0.2])):
        if part:
            rate = sum(row["tokens"] for row in part) / sum(row["nfe"] for row in part)
            whole = sum(row["reason"] == FinishReason.STOP for row in part)
            print(f"{name}: {len(part)} edits, {rate:.2f} tokens per forward, {whole} end by themselves")
    checked = [row["reference"] for row in rows if "reference" in row]
    if checked:
        others = sorted(round(r["gap"], 4) for r in checked if not r["same"])
        print(f"transformers greedy: same answer {len(checked) - len(others)} of {len(checked)}; gaps {others}")


if __name__ == "__main__":
    main()
