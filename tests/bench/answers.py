"""Items of the evaluation files as prompts, decoded outside of an engine and scored by their tests."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.checkpoints.store import stored_bytes
from diffusion_core.config import DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.device import choose_precision
from diffusion_core.engine.loaded_model import LoadedModel, assemble
from diffusion_core.eval.dataset import read_dataset
from diffusion_core.eval.editing import EditingOptions, EditingTask, make_editing
from diffusion_core.eval.infilling import InfillingOptions, InfillingTask, make_infilling
from diffusion_core.eval.sandbox import run_program
from diffusion_core.requests import CompletionRequest, DecodingParams, EditRequest
from diffusion_core.sampling.aligned_draft import AlignedDraft
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.drafts import DraftSource, LookupDraft
from diffusion_core.sampling.rounds import RoundShape
from diffusion_core.sampling.sequence import DecodingSequence
from diffusion_core.sampling.stop import FenceRule, LineRule, StopRule, SuffixRule

Task = InfillingTask | EditingTask

NUM_LEFT = 8  # tokens at the end of a prompt that are computed each time


@dataclass(frozen=True)
class Item:
    """A task as a prompt with its stop rules; ``sources`` makes its free drafts anew for every decoding."""

    task: Task
    prompt: list[int]
    rules: tuple[StopRule, ...]
    sources: Callable[[], list[DraftSource]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that every measurement over items has."""
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--drafter", type=Path, default=None)
    parser.add_argument("--tuning", type=Path, default=None)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "int8"])
    parser.add_argument("--block-size", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path)


def load(args: argparse.Namespace) -> LoadedModel:
    """The model as the engine serves it, with the drafter of ``--drafter``."""
    return load_model(args.model, args.dtype, drafter=args.drafter, tuning=args.tuning)


def load_model(name: str, dtype: str, *, drafter: Path | None = None, tuning: Path | None = None) -> LoadedModel:
    """The model ``name`` as the engine serves it on a CPU, ``dtype`` as in ``engine.dtype``."""
    device, config = torch.device("cpu"), EngineConfig(model=name, dtype=dtype)
    precision = choose_precision(config, device, stored_bytes(name))
    checkpoint = load_checkpoint(
        name, dtype=precision.dtype, device=device, drafter=drafter, tuning=tuning, serve=True,
        quantize=precision.weights,
    )  # fmt: skip
    return assemble(checkpoint, config)


def read_items(model: LoadedModel, args: argparse.Namespace) -> list[Item]:
    """The file's items, spread over it where ``--limit`` asks for fewer."""
    dataset = read_dataset(args.data)
    is_edits = "instruction_lazy" in dataset.rows[0].fields
    made = make_editing(dataset, EditingOptions(), None, 0) if is_edits else None
    made = made or make_infilling(dataset, InfillingOptions(), None, 0)
    step = max(1, len(made.tasks) // args.limit) if args.limit else 1
    tasks = made.tasks[::step][: args.limit or None]
    return [_prepare(model, task, args.max_tokens) for task in tasks if isinstance(task, Task)]


def _prepare(model: LoadedModel, task: Task, max_tokens: int) -> Item:
    encoder, request = model.encoder, task.make_request()
    rules: tuple[StopRule, ...]
    if isinstance(request, CompletionRequest):
        prompt = encoder.encode_completion(request, max_tokens).tokens
        starts_line = request.prefix[-1:] in ("", "\n")
        rules = (LineRule(),) if request.single_line else (SuffixRule(request.suffix, starts_line=starts_line),)
        return Item(task, prompt, rules, lambda: [LookupDraft(prompt)])
    assert isinstance(request, EditRequest)
    prompt = encoder.encode_edit(request, max_tokens).tokens
    fence = encoder.format.fence
    original = encoder.encode_text(request.selection.rstrip("\n") + "\n" + (fence(request) if fence else ""))
    rules = (FenceRule(fence(request)),) if fence else ()
    return Item(task, prompt, rules, lambda: [AlignedDraft(original), LookupDraft(prompt)])


def decode(
    model: LoadedModel,
    item: Item,
    decoding: DecodingParams,
    *,
    use_free: bool,
    shape: RoundShape,
    max_tokens: int,
    rounds: RoundModel | None = None,
) -> dict[str, Any]:
    """One answer: text, tokens, forwards behind the prompt, and their seconds."""
    cache, _ = model.prefix_cache.take(item.prompt, max_tokens)
    sequence = DecodingSequence(model.denoiser, list(item.prompt), cache, num_prompt=len(item.prompt))
    task = DecodingTask(
        max_tokens=max_tokens, decoding=decoding, stop_rules=item.rules, stop_token_ids=model.stop_token_ids,
        banned_token_ids=model.banned_token_ids, round_shape=shape,
    )  # fmt: skip
    sources = item.sources() if use_free else []
    decoder = BlockDecoder(model.denoiser, model.tokenizer, sequence, task, sources, rounds=rounds)
    started = time.perf_counter()
    for progress in decoder.run():
        if progress.num_prefilled:
            started = time.perf_counter()
    seconds = time.perf_counter() - started
    # The next way to decode the item begins like a request after a key stroke: with the end of the prompt to compute.
    cache.crop(min(cache.length, max(0, len(item.prompt) - NUM_LEFT)))
    model.prefix_cache.give(sequence.tokens, cache)
    return {
        "task_id": item.task.task_id, "text": decoder.answer.text, "tokens": decoder.answer.num_tokens,
        "nfe": sequence.num_forwards, "seconds": seconds,
    }  # fmt: skip


def passes(task: Task, text: str) -> bool:
    """Whether the item's tests pass on the answer."""
    answer = task.read_answer(text) if isinstance(task, InfillingTask) else text
    return asyncio.run(run_program(task.render_program(answer))).passed


def summarise(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals of one way of decoding."""
    tokens = sum(row["tokens"] for row in answers)
    table = {
        "answers": len(answers), "tokens": tokens,
        "tokens_per_forward": round(tokens / max(1, sum(row["nfe"] for row in answers)), 3),
        "ms_per_token": round(1000 * sum(row["seconds"] for row in answers) / max(1, tokens), 1),
    }  # fmt: skip
    if all("passed" in row for row in answers):
        table["passed"] = sum(row["passed"] for row in answers)
        table["pass_at_1"] = round(table["passed"] / max(1, len(answers)), 4)
    return table
