"""How rounds of a GPU would go, without one: the real model chooses them on a CPU, measured times say what they cost.

    python -m bench.round_prices --data HumanEval.dev.jsonl.gz --edits CanItEdit.dev.jsonl.gz     # from tests/

A round has the rows that a captured one would have, evaluated by the ordinary forward, and is priced by the size that
holds them (``--us``: microseconds with the output head, by rows) and what the host takes (``--host-us``). Near ties may
fall otherwise than on a GPU, so texts differ a little: compare in one run.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench.gpu import read_prefixes
from bench.gpu_texts import Variant, decode

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.checkpoints.packaged import find_packaged_drafter, find_packaged_tuning
from diffusion_core.config import DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.decodable import draft_sources, encode, stop_rules
from diffusion_core.engine.loaded_model import LoadedModel, assemble
from diffusion_core.engine.prefix_cache import DRAFT_ROOM
from diffusion_core.model.captured import RoundOutputs
from diffusion_core.model.graphs import Meanwhile
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.requests import EditRequest, Policy
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.rounds import RoundShape
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

EDIT_TOKENS = 400
LONGEST_SELECTION = 1800  # characters: the others take long on a CPU


class OrdinaryRounds:
    """Stands where captured rounds do: rows by the ordinary forward, and each one's best token. Notes all sizes."""

    can_share = False

    def __init__(self, denoiser: Denoiser, sizes: Sequence[int], max_rows: int) -> None:
        self.max_rows = max_rows
        self._denoiser, self.row_buckets = dataclasses.replace(denoiser, captured=None), sizes
        self.meanwhile = Meanwhile()
        self.asked: list[int] = []

    def fits(self, _: KVCache, num_rows: int) -> bool:
        return num_rows <= self.max_rows

    def rows_to_score(self, num_rows: int) -> int:
        return num_rows

    def wait(self) -> None:
        pass

    def evaluate(
        self, cache: KVCache, ids: Sequence[int], positions: Sequence[int], visible: torch.Tensor,
        first_slot: int | None = None, *, chooses: bool = False,
    ) -> RoundOutputs:  # fmt: skip
        if chooses:  # others are rounds of a prompt
            self.asked.append(len(ids))
        self.meanwhile.do()
        hidden = self._denoiser.evaluate(cache, ids, positions=positions, visible=visible, first_slot=first_slot)
        return RoundOutputs(hidden, [], torch.tensor(self._denoiser.best(hidden)) if chooses else None)


def read_edits(path: Path, limit: int) -> list[dict[str, Any]]:
    """The first items of a CanItEdit file that are not too long."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    return [item for item in items if len(item["before"]) < LONGEST_SELECTION][:limit]


def edit(model: LoadedModel, item: dict[str, Any], learned: RoundModel) -> dict[str, Any]:
    """One edit of a whole file, as the engine sets it up."""
    request = EditRequest(selection=item["before"], instruction=item["instruction_descriptive"], language="python")
    prompt = list(encode(request, model, EDIT_TOKENS, is_opening=False).tokens)
    cache = SequenceCache.create(model.denoiser, len(prompt) + EDIT_TOKENS + DRAFT_ROOM)
    sequence = DecodingSequence(model.denoiser, prompt, cache, num_prompt=len(prompt))
    sources, original = draft_sources(request, model, prompt)
    task = DecodingTask(
        max_tokens=EDIT_TOKENS, original=original.text if original else (), stop_rules=stop_rules(request, model),
        stop_token_ids=model.stop_token_ids, banned_token_ids=model.banned_token_ids,
        round_shape=RoundShape.ALL_LENGTHS, name="edit",
    )  # fmt: skip
    decoder = BlockDecoder(model.denoiser, model.tokenizer, sequence, task, sources, rounds=learned)
    for _ in decoder.run():
        pass
    return {"tokens": decoder.answer.num_tokens, "forwards": sequence.num_forwards}


def price(name: str, answers: Sequence[dict[str, Any]], asked: Sequence[int], times: dict[int, float]) -> None:
    """Print what the rounds come to."""
    tokens = sum(answer["tokens"] for answer in answers)
    sizes = Counter(next(size for size in times if size >= rows) for rows in asked)
    seconds = sum(times[size] * count for size, count in sizes.items()) / 1e6
    print(
        f"{name:32s} {tokens} tokens, {len(asked)} rounds ({tokens / len(asked):.2f} a round), by size "
        f"{dict(sorted(sizes.items()))}: {tokens / seconds:,.0f} tokens/s",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Price completions and edits, with rounds that know of sizes and rounds that do not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--edits", type=Path, default=None)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--items", type=int, default=12)
    parser.add_argument("--us", default="16=700,32=893,64=1394")
    parser.add_argument("--host-us", type=float, default=250)
    args = parser.parse_args(arguments)
    pairs = (pair.split("=") for pair in args.us.split(","))
    times = {int(rows): float(us) + args.host_us for rows, us in pairs}
    config = EngineConfig(device="cpu", dtype="bfloat16", capture="off")
    checkpoint = load_checkpoint(
        DEFAULT_MODEL, dtype=torch.bfloat16, device=torch.device("cpu"),
        drafter=find_packaged_drafter(DEFAULT_MODEL), tuning=find_packaged_tuning(DEFAULT_MODEL),
    )  # fmt: skip
    model = assemble(checkpoint, config)
    prefixes = read_prefixes(args.data, args.prompts)
    items = [] if args.edits is None else read_edits(args.edits, args.items)

    def measure(
        name: str, sizes: Sequence[int], block: int, *, free: bool, edits: bool = False, max_rows: int = 64
    ) -> None:
        rounds = OrdinaryRounds(model.denoiser, sizes, max_rows)
        contract = dataclasses.replace(model.denoiser.contract, block_size=block)
        denoiser = dataclasses.replace(model.denoiser, contract=contract, captured=rounds)  # type: ignore[arg-type]
        used, learned = dataclasses.replace(model, denoiser=denoiser), RoundModel()
        variant = Variant(name, "", Policy.VERIFIED, slots=True, free=free)
        answers = (
            [edit(used, item, learned) for item in items]
            if edits
            else [decode(used, variant, prefix, 128, learned) for prefix in prefixes]
        )
        price(name, answers, rounds.asked, times)

    for sizes, known in (((), "each row counts"), (tuple(times), "sizes known")):
        measure(f"slots and lookup, {known}", sizes, 4, free=True)
        if items:
            measure(f"edits, {known}", sizes, 4, free=True, edits=True)
    for rows in (4, 8, 16):  # of a round that sequences share
        measure(f"slots alone, {rows} rows at most", (), 4, free=False, max_rows=rows)
    for block in (2, 3, 4, 5):
        measure(f"slots alone, blocks of {block}", tuple(times), block, free=False)


if __name__ == "__main__":
    main()
