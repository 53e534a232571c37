"""Milliseconds per token of `verified` by who chooses its rounds: fixed rules, or measured costs; the text is the same.

    python -m bench.rounds --data FILE.jsonl.gz --drafter FOLDER --limit 30 --out OUT.json

Every item (infilling or edits, by the file's fields) is decoded by every variant before the next one, in an order that
turns from item to item. The clock starts behind the prompt. What a variant learns about drafts it keeps from item to
item, as an engine does; the first ``--warm`` items are left out of the figures. The texts must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from bench.answers import Item, add_arguments, load, read_items

from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.requests import DecodingParams, Policy
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.cost_model import CostModel
from diffusion_core.sampling.cost_probe import CostProbe
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.rounds import RoundShape
from diffusion_core.sampling.sequence import DecodingSequence


@dataclass
class Variant:
    """A way to choose rounds, and what it has learned."""

    policy: Policy
    rounds: RoundModel
    use_free: bool = True
    use_slots: bool = True
    shape: RoundShape = RoundShape.TWO_PASS


def make_variants(model: LoadedModel) -> dict[str, Variant]:
    """All of them; the costs are measured here."""
    probe = CostProbe(model.denoiser)
    for _ in probe.run():
        pass
    assert probe.table is not None
    verified = Policy.VERIFIED
    return {
        "autoregressive": Variant(Policy.AUTOREGRESSIVE, RoundModel(), use_free=False, use_slots=False),
        "free_fixed": Variant(verified, RoundModel(), use_slots=False),
        "all_two_pass": Variant(verified, RoundModel()),
        "all_optimistic": Variant(verified, RoundModel(), shape=RoundShape.OPTIMISTIC),
        "costs": Variant(verified, RoundModel(costs=CostModel(probe.table))),
        "costs_free": Variant(verified, RoundModel(costs=CostModel(probe.table)), use_slots=False),
    }


def decode(model: LoadedModel, item: Item, variant: Variant, args: argparse.Namespace) -> dict[str, Any]:
    """One answer; ``seconds`` are those behind the prompt."""
    cache, _ = model.prefix_cache.take(item.prompt, args.max_tokens)
    sequence = DecodingSequence(model.denoiser, list(item.prompt), cache, num_prompt=len(item.prompt))
    params = DecodingParams(policy=variant.policy, use_mask_drafts=variant.use_slots, block_size=args.block_size)
    task = DecodingTask(
        max_tokens=args.max_tokens, decoding=params, stop_rules=item.rules, stop_token_ids=model.stop_token_ids,
        banned_token_ids=model.banned_token_ids, round_shape=variant.shape, name="bench",
    )  # fmt: skip
    sources = item.sources() if variant.use_free else []
    decoder = BlockDecoder(model.denoiser, model.tokenizer, sequence, task, sources, rounds=variant.rounds)
    for _ in sequence.prefill():
        pass
    begin = time.perf_counter()
    for _ in decoder.run():
        pass
    seconds = time.perf_counter() - begin
    model.prefix_cache.give(sequence.tokens, cache)
    return {
        "task_id": item.task.task_id, "text": decoder.answer.text, "tokens": decoder.answer.num_tokens,
        "nfe": sequence.num_forwards, "seconds": seconds,
    }  # fmt: skip


def summarise(rows: dict[str, list[dict[str, Any]]], reference: str) -> dict[str, Any]:
    """Per variant: medians over the items, totals, and the median over the items of the time by ``reference``'s."""
    table: dict[str, Any] = {}
    for name, answers in rows.items():
        answered = [(row, other) for row, other in zip(answers, rows[reference], strict=True) if row["tokens"]]
        tokens = sum(row["tokens"] for row, _ in answered)
        table[name] = {
            "tokens_per_forward": round(tokens / max(1, sum(row["nfe"] for row, _ in answered)), 3),
            "ms_per_token_median": round(median(1000 * row["seconds"] / row["tokens"] for row, _ in answered), 2),
            "ms_per_token_total": round(1000 * sum(row["seconds"] for row, _ in answered) / max(1, tokens), 2),
            f"of_{reference}_median": round(median(row["seconds"] / other["seconds"] for row, other in answered), 3),
        }
    return table


def make_table(rows: dict[str, list[dict[str, Any]]], variants: dict[str, Variant]) -> dict[str, Any]:
    """The figures, and for each variant what it has learned and chosen."""
    names = list(rows)
    reference = "free_fixed" if "free_fixed" in names else names[0]
    table: dict[str, Any] = {"threads": torch.get_num_threads(), "items": len(rows[names[0]])}
    table |= summarise(rows, reference)
    together = zip(*rows.values(), strict=True)
    table["texts_that_differ"] = [same[0]["task_id"] for same in together if len({row["text"] for row in same}) > 1]
    for name in names:
        plan, learned = variants[name].rounds.plan, variants[name].rounds.statistics
        table[name]["plan"] = f"{plan.block_size} slots, {plan.shape}" if plan else "no slots"
        table[name]["drafts"] = {
            source: [t.num_drafts, t.num_drafted, t.num_accepted, *(round(rate, 2) for rate in t.rates)]
            for source, t in learned.totals.items()
        }
        if (costs := variants[name].rounds.costs) is not None:
            table[name]["pace"] = round(costs.pace, 3)
            table[name]["costs_ms"] = {n: round(costs.body[n], 1) for n in (1, 4, 8, 16, 32, 33, 64)}
            table[name]["slots_ms"] = {n: round(costs.slots[n], 1) for n in (4, 16, 32)}
            table[name]["head_ms"] = {n: round(costs.head[n], 1) for n in (1, 16, 64)}
    return table


def main() -> None:
    """Run over a data file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--warm", type=int, default=5, help="items at the beginning that are not counted")
    parser.add_argument("--variants", nargs="+", default=None)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = load(args)
    items = read_items(model, args)
    variants = make_variants(model)
    names = args.variants or list(variants)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number, item in enumerate(items):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            row = decode(model, item, variants[name], args)
            if number >= args.warm:
                rows[name].append(row)
        if number >= args.warm:  # what is there is there, should the run be cut off
            args.out.write_text(json.dumps(make_table(rows, variants), indent=2) + "\n", encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
