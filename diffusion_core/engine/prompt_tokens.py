"""From a request to the tokens a model reads, within its context: what does not fit is left out by whole lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from diffusion_core.chat import ChatRequest
from diffusion_core.errors import CheckpointError, ContextTooLong
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.prompts import Middle, Opening, Prompt, PromptFormat, Special, Text, prompt_format
from diffusion_core.requests import MAX_INSTRUCTION_CHARACTERS, CompletionRequest, EditRequest

# Where a long prefix is cut moves in steps of this many lines, so that typing on keeps the beginning of the prompt,
# and with it the prefix cache, as it was.
ANCHOR_LINES = 32

# No token of code is longer on average than this many characters: what lies further away need not be tokenized.
_CHARACTERS_PER_TOKEN = 8

# Tokens; an instruction is a line or two.
SURROUNDINGS_STEP = 64

# Tokens of the context that neither a conversation nor its answer takes, and the least an answer is asked for.
_CHAT_MARGIN, _LEAST_ANSWER = 8, 16

# The rest of the context belongs to the prefix.
_SUFFIX_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Tokens of a prompt, and a remark if the context around the cursor had to be cut.

    ``suffix`` are the tokens that stand behind the answer, where the model fills it in between.
    """

    tokens: list[int]
    notice: str = ""
    suffix: tuple[int, ...] = ()


def _part_at_middle(prompt: Prompt) -> tuple[Prompt, Prompt]:
    """What stands before and behind the middle; all of it before, where there is none."""
    at = next((i for i, part in enumerate(prompt) if isinstance(part, Middle)), len(prompt))
    return prompt[:at], prompt[at + 1 :]


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of leading tokens that two prompts share."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _anchored_cut(text: str, first: int) -> int | None:
    """The start of a line behind ``first`` whose number is a multiple of the anchor step; None: no line will do.

    The step is halved until at least half of ``text[first:]`` is left: of long lines few fit, and the next anchor may
    be far behind them.
    """
    number = text.count("\n", 0, first)
    starts: list[int] = []
    start = first
    # Lines that begin in the first half; the number of the first of them is one more than that of the line at `first`.
    while (start := text.find("\n", start) + 1) and 2 * (len(text) - start) >= len(text) - first:
        starts.append(start)
    step = ANCHOR_LINES
    while step and starts:
        to_next = -(number + 1) % step
        if to_next < len(starts):
            return starts[to_next]
        step //= 2
    return None


class PromptEncoder:
    """Encodes requests for one checkpoint. ``max_context_tokens`` bounds prompt and answer together."""

    def __init__(self, tokenizer: Tokenizer, contract: DiffusionConfig, max_context_tokens: int) -> None:
        self._tokenizer, self._contract = tokenizer, contract
        self.max_tokens = max_context_tokens
        self.format: PromptFormat = prompt_format(contract.prompt_format)

    def encode_text(self, text: str) -> list[int]:
        """Tokens of ordinary text; the names of special tokens inside it are text as well."""
        # The property belongs to the shared tokenizer: it is set on every call, by the engine's thread alone.
        self._tokenizer.encode_special_tokens = True
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode(self, prompt: Prompt) -> list[int]:
        """Tokens of a rendered prompt; the middle, if it has one, has none.

        Raises:
            CheckpointError: the tokenizer lacks a special token that the prompt format needs.
        """
        tokens: list[int] = []
        for part in prompt:
            if isinstance(part, Special):
                token = self._tokenizer.token_to_id(part.name)
                if token is None:
                    raise CheckpointError(
                        f"prompt format {self.format.name} needs the token {part.name}, which the tokenizer lacks"
                    )
                tokens.append(token)
            elif isinstance(part, Opening):
                tokens += self._encode_opening()
            elif isinstance(part, Text) and part.text:
                tokens += self.encode_text(part.text)
        return tokens

    def _encode_opening(self) -> list[int]:
        """What the tokenizer's own rule puts before a text."""
        text = self.encode_text("a")
        whole: list[int] = self._tokenizer.encode("a", add_special_tokens=True).ids
        return whole[: whole.index(text[0])]

    def encode_completion(self, request: CompletionRequest, max_answer: int) -> EncodedPrompt:
        """Prompt of a completion; prefix and suffix are cut to the context by whole lines, nearest to the cursor kept.

        Raises:
            ContextTooLong: the snippets alone leave no room.
        """
        layout = self._contract.fim_layout or self.format.default_fim_layout
        bare = dataclasses.replace(request, prefix="", suffix="")
        budget = self.max_tokens - max_answer - len(self.encode(self.format.render_completion(bare, layout))) - 8
        if budget < 16:
            raise ContextTooLong(
                f"snippets and answer leave {budget} of {self.max_tokens} tokens for the document: send fewer snippets"
            )
        prefix, suffix, is_cut = self._fit(request.prefix, request.suffix, budget)
        fitted = dataclasses.replace(request, prefix=prefix, suffix=suffix)
        notice = f"the context was cut to {self.max_tokens} tokens" if is_cut else ""
        before, behind = _part_at_middle(self.format.render_completion(fitted, layout))
        return EncodedPrompt(self.encode(before), notice, tuple(self.encode(behind)))

    def encode_edit(self, request: EditRequest, max_answer: int) -> EncodedPrompt:
        """Prompt of an edit. The surrounding text may be cut, the selection and the instruction never are.

        Raises:
            CheckpointError: the checkpoint's prompt format has no edits.
            ContextTooLong: selection, instruction and answer do not fit; the message gives the figures.
        """
        if self.format.render_edit is None:
            raise CheckpointError(f"prompt format {self.format.name} has no instruction edits")
        # With one character for each side that has text, so that the words which introduce it are counted.
        before, after = ("x" if side.strip() else "" for side in (request.before, request.after))
        bare = self.encode(self.format.render_edit(dataclasses.replace(request, before=before, after=after)))
        room = self.max_tokens - max_answer - len(bare) - 32
        # What is left for the surroundings moves in steps, so that a longer instruction does not cut them anew.
        budget = room // SURROUNDINGS_STEP * SURROUNDINGS_STEP
        if room < SURROUNDINGS_STEP and (before or after):
            alone = self.encode_edit(dataclasses.replace(request, before="", after=""), max_answer)
            return EncodedPrompt(alone.tokens, "the text around the selection does not fit and was left out")
        if room < 0:
            raise ContextTooLong(
                f"the selection and the instruction take {len(bare)} tokens and the answer up to {max_answer}; "
                f"together at most {self.max_tokens - 32}: select fewer lines"
            )
        before, after, is_cut = self._fit(request.before, request.after, budget)
        fitted = dataclasses.replace(request, before=before, after=after)
        notice = f"the text around the selection was cut to {budget} tokens" if is_cut else ""
        return EncodedPrompt(self.encode(self.format.render_edit(fitted)), notice)

    def encode_chat(self, request: ChatRequest) -> EncodedPrompt:
        """Prompt of a conversation. Nothing of it is ever left out.

        Raises:
            CheckpointError: the checkpoint's prompt format has no conversations.
        """
        if self.format.render_chat is None:
            raise CheckpointError(f"this model does not chat (its prompt format is {self.format.name})")
        return EncodedPrompt(self.encode(self.format.render_chat(request.turns)))

    def chat_budget(self, request: ChatRequest, limit: int) -> int:
        """Tokens the answer of a conversation may take: what was asked for, at most ``limit``, as far as there is room.

        Raises:
            CheckpointError: as :meth:`encode_chat`.
            ContextTooLong: the conversation leaves no room for an answer; the message gives the figures.
        """
        num_prompt = len(self.encode_chat(request).tokens)
        room = self.max_tokens - num_prompt - _CHAT_MARGIN
        if room < _LEAST_ANSWER:
            raise ContextTooLong(
                f"the conversation takes {num_prompt} tokens of {self.max_tokens}, which leaves no room for an answer"
            )
        return min(request.max_tokens or limit, limit, room)

    def encode_edit_opening(self, request: EditRequest, max_answer: int) -> EncodedPrompt:
        """The prompt of an edit as far as it stays the same however the instruction goes on.

        Raises:
            CheckpointError, ContextTooLong: as :meth:`encode_edit`.
        """
        encoded = self.encode_edit(request, max_answer)
        known = request.instruction.strip()[: MAX_INSTRUCTION_CHARACTERS - 3]
        # Where the instruction ends in the tokens is the format's affair: two ways to go on show it for every format.
        ways = (
            self.encode_edit(dataclasses.replace(request, instruction=known + rest), max_answer).tokens
            for rest in (" so", ".")
        )
        shared = min(common_length(encoded.tokens, way) for way in ways)
        return EncodedPrompt(encoded.tokens[:shared], encoded.notice)

    def _fit(self, prefix: str, suffix: str, budget: int) -> tuple[str, str, bool]:
        """Prefix and suffix within ``budget`` tokens, and whether anything was left out."""
        near = budget * _CHARACTERS_PER_TOKEN
        if len(prefix) + len(suffix) <= near:
            sizes = len(self.encode_text(prefix)), len(self.encode_text(suffix))
            if sum(sizes) <= budget:
                return prefix, suffix, False
        num_suffix = min(len(self.encode_text(suffix[:near])), int(budget * _SUFFIX_SHARE))
        kept_prefix = self._keep_end(prefix, budget - num_suffix)
        rest = budget - len(self.encode_text(kept_prefix))
        kept_suffix = self._keep_start(suffix, max(num_suffix, 0) if rest < num_suffix else rest)
        return kept_prefix, kept_suffix, (kept_prefix, kept_suffix) != (prefix, suffix)

    def _keep_end(self, text: str, budget: int) -> str:
        """The end of ``text`` within ``budget`` tokens, cut at an anchored line start where possible."""
        offset = max(0, len(text) - budget * _CHARACTERS_PER_TOKEN)
        self._tokenizer.encode_special_tokens = True
        encoding = self._tokenizer.encode(text[offset:], add_special_tokens=False)
        if offset == 0 and len(encoding.ids) <= budget:
            return text
        if len(encoding.ids) > budget:
            offset += encoding.offsets[len(encoding.ids) - budget][0]
        cut = _anchored_cut(text, offset)
        return text[offset if cut is None else cut :]

    def _keep_start(self, text: str, budget: int) -> str:
        """The start of ``text`` within ``budget`` tokens, cut at a line end where possible."""
        if budget <= 0:
            return ""
        self._tokenizer.encode_special_tokens = True
        near = text[: budget * _CHARACTERS_PER_TOKEN]
        encoding = self._tokenizer.encode(near, add_special_tokens=False)
        if len(near) == len(text) and len(encoding.ids) <= budget:
            return text
        end = encoding.offsets[budget][0] if len(encoding.ids) > budget else len(near)
        found = text.rfind("\n", 0, end)
        return text[: found + 1] if found >= 0 else text[:end]
