"""What the peers answer: prompts as token ids, with the rules that end an answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from diffusion_core.config import EngineConfig
from diffusion_core.engine.models import LoadedModel
from diffusion_core.eval.dataset import read_dataset
from diffusion_core.eval.editing import EditingOptions, InstructionKind, make_editing
from diffusion_core.eval.infilling import InfillingOptions, make_infilling
from diffusion_core.requests import CompletionRequest, EditRequest
from diffusion_core.sampling.stop import FenceRule, LineRule, StopRule, SuffixRule


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


def spread(values: tuple, count: int) -> list:
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


@dataclass
class AnswerReader:
    """Reads a peer's tokens one by one until the item's rules, a stop token or the budget end the answer."""

    item: Item
    tokenizer: Tokenizer
    stop_token_ids: frozenset[int]
    text: str = ""
    num_read: int = 0
    is_complete: bool = False
    _stream: DecodeStream = field(default_factory=lambda: DecodeStream(skip_special_tokens=True))

    def feed(self, token: int) -> bool:
        """Take a token; True when the answer is complete. What comes after is ignored."""
        if self.is_complete:
            return True
        self.num_read += 1
        if token in self.stop_token_ids:
            self.is_complete = True
            return True
        piece = self._stream.step(self.tokenizer, token) or ""
        self.text += piece
        for rule in self.item.rules if piece else ():
            if stop := rule.check(self.text, len(piece)):
                self.text, self.is_complete = self.text[: stop.keep], True
                return True
        self.is_complete = self.num_read >= self.item.request.max_tokens
        return self.is_complete
