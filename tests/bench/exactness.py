"""`verified` against `autoregressive` on real infilling prompts, and against transformers' greedy choice.

    python -m bench.exactness --data FILE.jsonl.gz --dtype float32 --out OUT.jsonl

Every item is decoded twice over the same prompt. Where the texts differ, the two best logits at the first difference
are recorded: a gap within rounding is a tie, anything else is a bug. With ``--reference`` the answer is also run
through transformers' own model in one forward: its greedy decoding gives the same text exactly when its best token
after each position is the answer's next one. Results are appended line by line; a second run goes on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from bench.reference_model import load_reference_of

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.device import choose_precision
from diffusion_core.engine.loaded_model import LoadedModel, assemble
from diffusion_core.requests import CompletionRequest, DecodingParams, Policy
from diffusion_core.sampling.asking import run_alone
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.drafts import LookupDraft
from diffusion_core.sampling.sequence import DecodingSequence
from diffusion_core.sampling.stop import LineRule, SuffixRule

MAX_TOKENS = 128


def decode(
    model: LoadedModel, prompt: list[int], policy: Policy, *, single_line: bool, suffix: str, starts_line: bool
) -> dict[str, Any]:
    """Tokens and text of one answer; the prompt's cache is shared between the policies."""
    cache, _ = model.prefix_cache.take(prompt, MAX_TOKENS)
    sequence = DecodingSequence(model.denoiser, list(prompt), cache, num_prompt=len(prompt))
    task = DecodingTask(
        max_tokens=MAX_TOKENS,
        decoding=DecodingParams(policy=policy),
        stop_rules=(LineRule(),) if single_line else (SuffixRule(suffix, starts_line=starts_line),),
        stop_token_ids=model.stop_token_ids,
        banned_token_ids=model.banned_token_ids,
    )
    decoder = BlockDecoder(model.denoiser, model.tokenizer, sequence, task, [LookupDraft(prompt)])
    started = None
    for progress in decoder.run():
        if not progress.num_prefilled and started is None:
            started = time.perf_counter()
    ms = (time.perf_counter() - (started or time.perf_counter())) * 1000
    model.prefix_cache.give(sequence.tokens, cache)
    return {
        "text": decoder.answer.text,
        "reason": decoder.answer.finish_reason,
        "tokens": sequence.answer,
        "num_tokens": decoder.answer.num_tokens,
        "nfe": sequence.num_forwards,
        "ms_after_first": ms,
    }


def first_difference(model: LoadedModel, prompt: list[int], a: list[int], b: list[int]) -> dict[str, Any] | None:
    """Where two answers part, and the gap between the two best logits there; None when one begins with the other."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            cache, _ = model.prefix_cache.take(prompt + a[:i], 0)
            sequence = DecodingSequence(model.denoiser, prompt + a[:i], cache, num_prompt=len(prompt))
            for _ in sequence.prefill():
                pass
            hidden = run_alone(sequence.forward(sequence.pending, num_clean=len(sequence.pending))).hidden
            best = model.denoiser.logits(hidden[-1:])[0].topk(2).values.tolist()
            return {"index": i, "gap": best[0] - best[1], "best": best[0]}
    return None


def check_reference(reference: Any, prompt: list[int], answer: list[int]) -> dict[str, Any]:
    """Whether transformers' greedy decoding gives ``answer`` too, and the gap where it first does not."""
    ids = torch.tensor([prompt + answer])
    with torch.inference_mode():
        logits = reference(ids, logits_to_keep=len(answer) + 1).logits[0, :-1].float()
    for i, token in enumerate(answer):
        if int(logits[i].argmax()) != token:
            best = int(logits[i].argmax())
            return {"same": False, "index": i, "token": best, "gap": float(logits[i].max() - logits[i][token])}
    return {"same": True}


def main() -> None:
    """Run over a data file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "int8"])
    parser.add_argument("--layout", default="")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--verified-only", action="store_true", help="for layouts: half the time")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    device = torch.device("cpu")
    precision = choose_precision(EngineConfig(dtype=args.dtype), device)
    checkpoint = load_checkpoint(
        args.model, dtype=precision.dtype, device=device, serve=True, quantize=precision.weights
    )
    model = assemble(checkpoint, EngineConfig(model=args.model))
    reference = load_reference_of(args.model, precision.dtype) if args.reference else None
    with gzip.open(args.data, "rt", encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    items = items[: args.limit or None]
    single_line = all(item["canonical_solution"].count("\n") <= 1 for item in items)
    done = {json.loads(line)["task_id"] for line in args.out.open()} if args.out.exists() else set()
    with args.out.open("a", encoding="utf-8") as out:
        for item in items:
            if item["task_id"] not in done:
                row = run_item(
                    model, reference, item, single_line=single_line, layout=args.layout, is_short=args.verified_only
                )
                out.write(json.dumps(row) + "\n")
                out.flush()
    summarise(args.out)


def run_item(
    model: LoadedModel, reference: Any, item: dict[str, Any], *, single_line: bool, layout: str, is_short: bool
) -> dict[str, Any]:
    """Both policies on one item."""
    request = CompletionRequest(prefix=item["prompt"], suffix=item["suffix"], language="python")
    form = model.encoder.format
    prompt = model.encoder.encode(
        form.render_completion(request, layout or model.denoiser.contract.fim_layout or form.default_fim_layout)
    )
    kind = {"single_line": single_line, "suffix": item["suffix"], "starts_line": item["prompt"][-1:] in ("", "\n")}
    fast = decode(model, prompt, Policy.VERIFIED, **kind)
    plain = fast if is_short else decode(model, prompt, Policy.AUTOREGRESSIVE, **kind)
    n = plain["num_tokens"] + (1 if plain["reason"] == "stop" else 0)
    row = {"task_id": item["task_id"], "prompt_tokens": len(prompt), "same": plain["text"] == fast["text"]}
    row |= {"text": plain["text"], "num_tokens": plain["num_tokens"], "reason": plain["reason"]}
    row |= {"nfe": plain["nfe"], "verified_nfe": fast["nfe"], "verified_text": fast["text"]}
    row |= {"ms": plain["ms_after_first"], "verified_ms": fast["ms_after_first"]}
    if not row["same"]:
        row["difference"] = first_difference(model, prompt, plain["tokens"], fast["tokens"])
    if reference is not None:
        row["reference"] = check_reference(reference, prompt, plain["tokens"][:n])
    return row


def summarise(path: Path) -> None:
    """Print what the table in EXPERIMENTS.md holds."""
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    differ = [row for row in rows if not row["same"]]
    tokens = sum(row["num_tokens"] for row in rows)
    print(f"items {len(rows)}  identical {len(rows) - len(differ)}  tokens {tokens}")
    print(f"tokens per forward: {tokens / sum(r['nfe'] for r in rows):.3f} autoregressive, "
          f"{tokens / sum(r['verified_nfe'] for r in rows):.3f} verified")  # fmt: skip
    for row in differ:
        print("  differs", row["task_id"], row.get("difference"))
    checked = [row["reference"] for row in rows if "reference" in row]
    if checked:
        others = [r for r in checked if not r["same"]]
        print(f"transformers greedy: same text {len(checked) - len(others)} of {len(checked)}; "
              f"gaps where not: {sorted(round(r['gap'], 4) for r in others)}")  # fmt: skip


if __name__ == "__main__":
    main()
