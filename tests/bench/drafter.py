"""Tokens per forward by draft source: the drafter's slots alone, lookup alone, all together; the text stays the same.

    python -m bench.drafter --data FILE.jsonl.gz --drafter FOLDER --limit 60 --score --out OUT.json

Every item (infilling or edits, by the file's fields) is decoded with `verified` once for each set of sources, so that
the figures compare on the same items; the texts must be equal, and the run says where they are not. ``base`` is one
token a forward. Forwards of the prompt are counted in no column; the last of them looks ahead, with slots where there
are any. ``--shape`` is where a gated adapter's slots ride; a draft head needs none.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from bench.answers import add_arguments, decode, load, passes, read_items, summarise

from diffusion_core.requests import DecodingParams, Policy
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.rounds import RoundShape

# name -> (whether the drafter's slots are used, whether free sources are); the first is decoded one by one
VARIANTS = {"base": (False, False), "slots": (True, False), "free": (False, True), "all": (True, True)}


def main() -> None:
    """Run over a data file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--shape", default="all_lengths", choices=[shape.value for shape in RoundShape])
    parser.add_argument("--score", action="store_true", help="run the items' tests")
    args = parser.parse_args()
    model = load(args)
    items = read_items(model, args)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in args.variants}
    rounds = {name: RoundModel() for name in args.variants}
    for item in items:
        verdicts: dict[str, bool] = {}  # the same text is run once
        for name in args.variants:
            use_slots, use_free = VARIANTS[name]
            policy = Policy.AUTOREGRESSIVE if name == "base" else Policy.VERIFIED
            params = DecodingParams(policy=policy, use_mask_drafts=use_slots, block_size=args.block_size)
            shape = RoundShape(args.shape)
            row = decode(
                model, item, params, use_free=use_free, shape=shape, max_tokens=args.max_tokens,
                rounds=rounds[name],
            )  # fmt: skip
            if args.score:
                if row["text"] not in verdicts:
                    verdicts[row["text"]] = passes(item.task, row["text"])
                row["passed"] = verdicts[row["text"]]
            rows[name].append(row)
    table: dict[str, Any] = {name: summarise(answers) for name, answers in rows.items()}
    both = list(zip(*rows.values(), strict=True))
    table["texts_that_differ"] = [same[0]["task_id"] for same in both if len({row["text"] for row in same}) > 1]
    if args.score:
        table["verdicts_that_differ"] = [s[0]["task_id"] for s in both if len({row["passed"] for row in s}) > 1]
    args.out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
