"""What the peers answer: prompts as token ids, with the rules that end an answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from diffusion_core.config import EngineConfig
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.eval.dataset import read_dataset
from diffusion_core.eval.editing import EditingOptions, InstructionKind, make_editing
from diffusion_core.eval.infilling import InfillingOptions, make_infilling
from diffusion_core.native import compute_apart
from diffusion_core.requests import CompletionRequest, EditRequest
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache
from diffusion_core.sampling.stop import FenceRule, LineRule, StopRule, SuffixRule

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One request and the same as token ids. ``rules`` are the engine's own for it."""

    task_id: str
    request: CompletionRequest | EditRequest
    tokens: list[int]
    rules: tuple[StopRule, ...]

    @property
    def is_edit(self) -> bool:
        return isinstance(self.request, EditRequest)


def read_items(path: Path, model: LoadedModel, count: int, max_tokens: int) -> list[Item]:
    """``count`` items spread evenly over the file (0: all); edits with their descriptive instructions."""
    dataset = read_dataset(path)
    if "instruction_descriptive" in dataset.rows[0].fields:
        made = make_editing(dataset, EditingOptions(kinds=(InstructionKind.DESCRIPTIVE,)), None, 0)
    else:
        made = make_infilling(dataset, InfillingOptions(stop_at_scope=False), None, 0)
    tasks = spread(made.tasks, count)
    return [make_item(task.task_id, task.make_request(), model, max_tokens) for task in tasks]


def spread(values: tuple[T, ...], count: int) -> list[T]:
    """``count`` of the values at even distances, the first among them; all where ``count`` is 0 or too many."""
    if not count or count >= len(values):
        return list(values)
    return [values[index * len(values) // count] for index in range(count)]


def make_item(task_id: str, request: CompletionRequest | EditRequest, model: LoadedModel, max_tokens: int) -> Item:
    """The prompt as the engine makes it; the longest answer is fixed, so that it is the same for every peer."""
    encoder, config = model.encoder, EngineConfig()
    if isinstance(request, CompletionRequest):
        budget = max_tokens or config.max_completion_tokens
        request = replace(request, max_tokens=budget)
        starts_line = request.prefix[-1:] in ("", "\n")
        rule = LineRule() if request.single_line else SuffixRule(request.suffix, starts_line=starts_line)
        return Item(task_id, request, encoder.encode_completion(request, budget).tokens, (rule,))
    budget = max_tokens or min(2 * len(encoder.encode_text(request.selection)) + 256, config.max_edit_tokens)
    request = replace(request, max_tokens=budget)
    fence = encoder.format.fence
    rules = (FenceRule(fence(request)),) if fence else ()
    return Item(task_id, request, encoder.encode_edit(request, budget).tokens, rules)


class AnswerReader:
    """Reads a peer's tokens one by one until the answer ends where our decoder would end it: by the very same code."""

    def __init__(self, item: Item, model: LoadedModel) -> None:
        # Filling memory makes a team of threads, which would take the spinning from the engine's in this very process.
        cache = compute_apart(lambda: SequenceCache.create(model.denoiser, 1))
        self._sequence = DecodingSequence(model.denoiser, list(item.tokens), cache, num_prompt=len(item.tokens))
        task = DecodingTask(
            max_tokens=item.request.max_tokens, stop_rules=item.rules, stop_token_ids=model.stop_token_ids
        )
        self._decoder = BlockDecoder(model.denoiser, model.tokenizer, self._sequence, task)

    @property
    def text(self) -> str:
        return self._decoder.answer.text

    @property
    def is_complete(self) -> bool:
        return self._decoder.answer.finish_reason is not None

    def feed(self, token: int) -> bool:
        """Take a token; True when the answer is complete. What comes after is ignored."""
        if not self.is_complete:
            self._sequence.tokens.append(token)
            self._decoder.replay([token])
        return self.is_complete
