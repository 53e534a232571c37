"""Tokenising a corpus: once for a tokenizer, into flat files that are then memory-mapped.

Of an infilling example, prefix, suffix and middle are kept apart, so that the loader can lay them out in any order.
Edits are rendered as the engine renders them. Texts are encoded as serving encodes them: special tokens off.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from diffusion_core.checkpoints.atomic import hold_lock, new_folder
from diffusion_core.engine.prompt_tokens import PromptEncoder
from diffusion_core.errors import ContextTooLong, InvalidRequest
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.prompts import Special
from diffusion_core.requests import EditRequest
from train.data.corpus import Corpus, read_examples
from train.data.errors import CorpusError
from train.data.examples import EditExample, Example, ExampleKind, InfillExample
from train.data.samples import Sample

__all__ = ["Sample", "TokenStore", "open_tokens"]

STORE_VERSION = 2
KINDS = tuple(ExampleKind)
_BATCH = 512
# Segments of an example, in this order: infilling (prefix, suffix, middle), edits (prompt, original, answer, changed).
NUM_SEGMENTS = 4

Ints = npt.NDArray[np.int64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TokenStore:
    """The tokens of one split.

    ``tokens`` int32 [*], memory-mapped; ``index`` int64 [N, 1 + NUM_SEGMENTS]: where an example begins and how long
    its segments are; ``kinds`` int64 [N]: positions in ``KINDS``; ``numbers`` int64 [N]: which example of the split it
    is; ``left_out``: how many do not fit, by reason.
    """

    tokens: npt.NDArray[np.int32] = field(repr=False)
    index: Ints = field(repr=False)
    kinds: Ints = field(repr=False)
    numbers: Ints = field(repr=False)
    left_out: dict[str, int]

    def segments(self, number: int) -> list[npt.NDArray[np.int32]]:
        """The segments of an example."""
        start, *lengths = self.index[number].tolist()
        ends = list(itertools.accumulate(lengths, initial=start))
        return [self.tokens[begin:end] for begin, end in itertools.pairwise(ends)]


def open_tokens(
    corpus: Corpus,
    split: str,
    tokenizer: Tokenizer,
    contract: DiffusionConfig,
    *,
    max_tokens: int,
    on_progress: Progress,
) -> TokenStore:
    """The tokens of a split, made if no earlier call left them; only one process makes them.

    ``max_tokens`` bounds prompt and answer of an edit together.

    Raises:
        CorpusError: the split is empty, or a file is damaged.
        CheckpointError: the corpus folder cannot be written, or the tokenizer lacks a special token.
    """
    named = (STORE_VERSION, contract.prompt_format, contract.stop_token_ids, max_tokens, corpus.fingerprint(split))
    digest = hashlib.sha256(tokenizer.to_str().encode() + repr(named).encode())
    name = f"{split}-{digest.hexdigest()[:20]}"
    folder = corpus.folder / "tokens" / name
    is_made = (folder / "store.json").is_file  # the folder appears whole, so looking needs no lock
    if not is_made():
        with hold_lock(corpus.folder / "tokens" / f"{name}.lock"):
            if not is_made():
                encoder = _ExampleEncoder(tokenizer, contract, max_tokens)
                with new_folder(folder) as draft:
                    _write_store(draft, read_examples(corpus, split), encoder, corpus.num_examples(split), on_progress)
    return _read_store(folder)


def _write_store(
    folder: Path, examples: Iterator[Example], encoder: _ExampleEncoder, total: int, on_progress: Progress
) -> None:
    rows: list[list[int]] = []
    kinds: list[int] = []
    numbers: list[int] = []
    position = done = 0
    with (folder / "tokens.bin").open("wb") as file:
        for batch in _batched(examples, _BATCH):
            on_progress("tokenising", done, total)
            first, done = done, done + len(batch)
            for number, (example, segments) in enumerate(zip(batch, encoder.encode(batch), strict=True), start=first):
                if segments is None:
                    continue
                lengths = [len(segment) for segment in segments] + [0] * (NUM_SEGMENTS - len(segments))
                rows.append([position, *lengths])
                kinds.append(KINDS.index(example.kind))
                numbers.append(number)
                for segment in segments:
                    file.write(np.asarray(segment, dtype="<i4").tobytes())
                position += sum(lengths)
    if not rows:
        raise CorpusError(f"no example fits into the limit of tokens: {dict(encoder.left_out)}; raise max_tokens")
    np.save(folder / "index.npy", np.asarray(rows, dtype=np.int64))
    np.save(folder / "kinds.npy", np.asarray(kinds, dtype=np.int64))
    np.save(folder / "numbers.npy", np.asarray(numbers, dtype=np.int64))
    stored = {"num_tokens": position, "num_examples": len(rows), "left_out": dict(encoder.left_out)}
    (folder / "store.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _read_store(folder: Path) -> TokenStore:
    try:
        stored: dict[str, Any] = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        index, kinds, numbers = (np.load(folder / f"{name}.npy") for name in ("index", "kinds", "numbers"))
        size = (folder / "tokens.bin").stat().st_size
        if size != 4 * stored["num_tokens"] or {len(index), len(kinds), len(numbers)} != {stored["num_examples"]}:
            raise ValueError("sizes do not agree")
        tokens = np.memmap(folder / "tokens.bin", dtype="<i4", mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise CorpusError(f"{folder} is damaged ({error}): remove it, and it is made again") from None
    return TokenStore(tokens, index, kinds, numbers, stored["left_out"])


T = TypeVar("T")


def _batched(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


class _ExampleEncoder:
    """Examples to segments of token ids. ``left_out`` counts what does not fit."""

    def __init__(self, tokenizer: Tokenizer, contract: DiffusionConfig, max_tokens: int) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._prompts = PromptEncoder(tokenizer, contract, max_tokens)
        self._contract = contract
        self.left_out: Counter[str] = Counter()

    def encode(self, examples: Sequence[Example]) -> list[list[list[int]] | None]:
        """Segments of every example, None for one that is left out."""
        texts: list[str] = []
        for example in examples:
            if isinstance(example, InfillExample):
                texts += [example.prefix, example.suffix, example.middle]
        self._tokenizer.encode_special_tokens = True
        encoded = iter(self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        return [
            [next(encoded).ids for _ in range(3)] if isinstance(example, InfillExample) else self._edit(example)
            for example in examples
        ]

    def _edit(self, example: EditExample) -> list[list[int]] | None:
        """Prompt, original, answer, and 0 or 1 for each token of the answer."""
        form = self._prompts.format
        if form.render_edit is None:
            self.left_out["the prompt format has no edits"] += 1
            return None
        try:
            request = EditRequest(
                selection=example.selection,
                instruction=example.instruction,
                before=example.before[: example.start],
                after=example.before[example.end :],
                language=example.origin.language,
                path=example.origin.path,
            )
            fence = form.fence(request) if form.fence else ""
            original = self._prompts.encode_text(_fenced(example.selection, fence))
            answer = self._prompts.encode_text(_fenced(example.edited, fence))
            changed = [*mark_changed(original, answer), 0]
            answer += self._stop(form.render_edit(request))
            prompt = self._prompts.encode_edit(request, len(answer)).tokens
        except ContextTooLong:
            self.left_out["edit longer than max_tokens"] += 1
            return None
        except InvalidRequest:
            self.left_out["edit that serving would refuse"] += 1
            return None
        return [prompt, original, answer, changed[: len(answer)]]

    def _stop(self, prompt: Sequence[object]) -> list[int]:
        """The token that ends the answer's turn: the first stop token that the prompt itself uses to end turns."""
        used = {part.name for part in prompt if isinstance(part, Special)}
        return stop_tokens(self._tokenizer, self._contract, [n for n in self._prompts.format.stop_tokens if n in used])


def _fenced(text: str, fence: str) -> str:
    """A selection as it stands in an answer: whole lines, then the closing fence (as the engine drafts it)."""
    lines = text.rstrip("\n")
    return (lines + "\n" if lines else "") + fence


def stop_tokens(tokenizer: Tokenizer, contract: DiffusionConfig, names: Sequence[str]) -> list[int]:
    """The first of ``names`` that the vocabulary has, else the checkpoint's first stop token, else none; 0 or 1 ids."""
    for name in names:
        token = tokenizer.token_to_id(name)
        if token is not None:
            return [token]
    return list(contract.stop_token_ids[:1])


def mark_changed(original: Sequence[int], answer: Sequence[int]) -> list[int]:
    """1 for every token of ``answer`` that was inserted or replaced, or that follows a deletion; else 0."""
    from rapidfuzz.distance import Levenshtein

    changed = [0] * len(answer)
    for step in Levenshtein.opcodes(list(original), list(answer)):
        if step.tag == "delete":
            if step.dest_start < len(answer):
                changed[step.dest_start] = 1
        elif step.tag != "equal":
            changed[step.dest_start : step.dest_end] = [1] * (step.dest_end - step.dest_start)
    return changed
