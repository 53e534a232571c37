"""Tokens per forward by draft source: the drafter's slots alone, lookup alone, all together; the text stays the same.

    python -m bench.drafter --data FILE.jsonl.gz --drafter FOLDER --limit 60 --out OUT.json

Every item (infilling or edits, by the file's fields) is decoded with `verified` once for each set of sources, so that
the figures compare on the same items; the texts must be equal, and the run says where they are not. ``--shape`` is
where a gated adapter's slots ride; a draft head needs none.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.models import LoadedModel, assemble
from diffusion_core.requests import CompletionRequest, DecodingParams, EditRequest, Policy
from diffusion_core.sampling.aligned_draft import AlignedDraft
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.drafts import DraftSource, LookupDraft
from diffusion_core.sampling.sequence import DecodingSequence
from diffusion_core.sampling.stop import FenceRule, LineRule, StopRule, SuffixRule
from diffusion_core.sampling.verified import RoundShape

Sources = Callable[[], list[DraftSource]]

# name -> (whether the drafter's slots are used, whether free sources are)
VARIANTS = {"slots": (True, False), "free": (False, True), "all": (True, True)}


def prepare(
    model: LoadedModel, item: dict[str, Any], max_tokens: int
) -> list[tuple[list[int], tuple[StopRule, ...], Sources]]:
    """Prompt, stop rules and free draft sources of each request of an item."""
    encoder = model.encoder
    if "instruction_lazy" not in item:
        request = CompletionRequest(prefix=item["prompt"], suffix=item["suffix"], language="python")
        prompt = encoder.encode_completion(request, max_tokens).tokens
        single = item["canonical_solution"].count("\n") <= 1
        starts_line = item["prompt"][-1:] in ("", "\n")
        rules = (LineRule(),) if single else (SuffixRule(item["suffix"], starts_line=starts_line),)
        return [(prompt, rules, lambda: [LookupDraft(prompt)])]
    found = []
    for kind in ("descriptive", "lazy"):
        edit = EditRequest(selection=item["before"], instruction=item[f"instruction_{kind}"], language="python")
        prompt = encoder.encode_edit(edit, max_tokens).tokens
        fence = encoder.format.fence
        text = edit.selection.rstrip("\n") + "\n" + (fence(edit) if fence else "")
        original = encoder.encode_text(text)
        rules = (FenceRule(fence(edit)),) if fence else ()
        found.append((prompt, rules, lambda p=prompt, o=original: [AlignedDraft(o), LookupDraft(p)]))
    return found  # type: ignore[return-value]


def decode(
    model: LoadedModel, prompt: list[int], rules: tuple[StopRule, ...], sources: list[DraftSource],
    *, use_slots: bool, args: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """One answer."""
    cache, _ = model.prefix_cache.take(prompt, args.max_tokens)
    sequence = DecodingSequence(model.denoiser, list(prompt), cache, num_prompt=len(prompt))
    task = DecodingTask(
        max_tokens=args.max_tokens,
        decoding=DecodingParams(policy=Policy.VERIFIED, use_mask_drafts=use_slots, block_size=args.block_size),
        stop_rules=rules, stop_token_ids=model.stop_token_ids, banned_token_ids=model.banned_token_ids,
        round_shape=RoundShape(args.shape),
    )  # fmt: skip
    decoder = BlockDecoder(model.denoiser, model.tokenizer, sequence, task, sources)
    started = None
    for progress in decoder.run():
        if not progress.num_prefilled and started is None:
            started = time.perf_counter()  # the first forward pays for what the prefill left; it is not timed
    seconds = time.perf_counter() - (started or time.perf_counter())
    model.prefix_cache.give(sequence.tokens, cache)
    return {
        "text": decoder.answer.text, "tokens": decoder.answer.num_tokens, "nfe": sequence.num_forwards,
        "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    """Run over a data file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--drafter", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--shape", default="all_lengths", choices=[shape.value for shape in RoundShape])
    parser.add_argument("--block-size", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    checkpoint = load_checkpoint(
        args.model, dtype=torch.bfloat16, device=torch.device("cpu"), drafter=args.drafter, serve=True
    )
    model = assemble(checkpoint, EngineConfig(model=args.model))
    with gzip.open(args.data, "rt", encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    step = max(1, len(items) // args.limit) if args.limit else 1  # spread over the file
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in args.variants}
    for item in items[::step][: args.limit or None]:
        for prompt, rules, sources in prepare(model, item, args.max_tokens):
            for name in args.variants:
                use_slots, use_free = VARIANTS[name]
                free = sources() if use_free else []
                rows[name].append(decode(model, prompt, rules, free, use_slots=use_slots, args=args))
    args.out.write_text(json.dumps(report(rows), indent=2) + "\n", encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def report(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Tokens per forward and milliseconds per token of each variant, and how many texts differ."""
    table: dict[str, Any] = {}
    for name, answers in rows.items():
        tokens = sum(row["tokens"] for row in answers)
        table[name] = {
            "answers": len(answers),
            "tokens": tokens,
            "tokens_per_forward": round(tokens / sum(row["nfe"] for row in answers), 3),
            "ms_per_token": round(1000 * sum(row["seconds"] for row in answers) / max(1, tokens), 1),
        }
    texts = [[row["text"] for row in answers] for answers in rows.values()]
    table["texts_that_differ"] = sum(len(set(same)) > 1 for same in zip(*texts, strict=True))
    return table


if __name__ == "__main__":
    main()
