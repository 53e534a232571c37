"""Fill-in-the-middle prompts from tokens: the prompt format's own rendering, with the texts already encoded.

The format is rendered once for each layout with two marks instead of prefix and suffix; what it puts around them is
then the layout, whatever the format.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from diffusion_core.engine.prompt_tokens import PromptEncoder
from diffusion_core.errors import ConfigError
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.prompts import Middle, Text
from diffusion_core.requests import CompletionRequest

_PREFIX, _SUFFIX = "\ue000prefix\ue000", "\ue000suffix\ue000"
# As in serving: the suffix gets a quarter of the room, and what the prefix leaves.
_SUFFIX_SHARE = 0.25
# A cut moves to the nearest line end within so many tokens.
_LINE_REACH = 48

Tokens = npt.NDArray[np.int64]


class InfillLayouts:
    """The layouts that samples are drawn from. ``overhead`` is the most tokens a layout adds to the texts."""

    def __init__(
        self, tokenizer: Tokenizer, contract: DiffusionConfig, layouts: Sequence[str], max_tokens: int
    ) -> None:
        encoder = PromptEncoder(tokenizer, contract, max_tokens)
        self.format = encoder.format
        self._max_tokens = max_tokens
        self.names = tuple(layouts) or (contract.fim_layout or self.format.default_fim_layout,)
        for name in self.names:
            if name not in self.format.fim_layouts:
                known = ", ".join(self.format.fim_layouts)
                raise ConfigError(f"layouts: {name!r} is unknown to the prompt format {self.format.name}; use {known}")
        self._templates = {name: self._render(encoder, name) for name in self.names}
        empty = CompletionRequest(prefix="", suffix="")
        self._empty = {name: encoder.encode(self.format.render_completion(empty, name)) for name in self.names}
        self.overhead = max(map(len, self._empty.values()))
        self._ends_line = _find_line_ends(tokenizer)

    def _render(self, encoder: PromptEncoder, layout: str) -> list[str | list[int]]:
        """The layout as fixed tokens and the two marks."""
        pieces: list[str | list[int]] = []
        request = CompletionRequest(prefix=_PREFIX, suffix=_SUFFIX)
        for part in self.format.render_completion(request, layout):
            if isinstance(part, Middle):
                raise ConfigError(
                    f"layouts: the prompt format {self.format.name} fills in where the middle stands; there is no "
                    "fill-in-the-middle layout to train"
                )
            if isinstance(part, Text) and part.text in (_PREFIX, _SUFFIX):
                pieces.append(part.text)
            else:
                pieces.append(encoder.encode((part,)))
        return pieces

    def choose(self, generator: np.random.Generator) -> str:
        """One of the layouts, all equally often."""
        return self.names[int(generator.integers(len(self.names)))]

    def prompt(self, layout: str, prefix: npt.ArrayLike, suffix: npt.ArrayLike, num_answer: int) -> Tokens:
        """The prompt's tokens, cut around the hole so that an answer of ``num_answer`` tokens fits."""
        template = self._templates[layout]
        before, after = np.asarray(prefix, dtype=np.int64), np.asarray(suffix, dtype=np.int64)
        if _SUFFIX not in template:
            after = after[:0]
        room = self._max_tokens - num_answer - len(self._empty[layout])
        num_after = min(len(after), max(int(room * _SUFFIX_SHARE), room - len(before)))
        before = self._keep_end(before, room - num_after)
        after = self._keep_start(after, num_after)
        texts = {_PREFIX: before, _SUFFIX: after}
        pieces = [texts[piece] if isinstance(piece, str) else np.asarray(piece, dtype=np.int64) for piece in template]
        joined = np.concatenate(pieces)
        return joined if len(joined) else np.asarray(self._empty[layout], dtype=np.int64)

    def _keep_end(self, tokens: Tokens, limit: int) -> Tokens:
        if len(tokens) <= limit:
            return tokens
        kept = tokens[len(tokens) - limit :] if limit else tokens[:0]
        ends = np.flatnonzero(self._ends_line[kept[:_LINE_REACH]])
        return kept[ends[0] + 1 :] if len(ends) and ends[0] + 1 < len(kept) else kept

    def _keep_start(self, tokens: Tokens, limit: int) -> Tokens:
        if len(tokens) <= limit:
            return tokens
        kept = tokens[:limit]
        reach = max(0, limit - _LINE_REACH)
        ends = np.flatnonzero(self._ends_line[kept[reach:]])
        return kept[: reach + ends[-1] + 1] if len(ends) else kept


def _find_line_ends(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """For every id, whether its text ends a line [V]."""
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    flags = np.zeros(size, dtype=bool)
    for number, text in enumerate(tokenizer.decode_batch([[token] for token in range(size)])):
        flags[number] = text.endswith("\n")
    return flags
