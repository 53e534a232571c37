"""Decontamination: no training text shares a run of 50 tokens with a prompt, solution or test of an evaluation set.

Items are short in some sets (half of MBPP's solutions have under 50 tokens, its tests one line each): lists and whole
items are looked for joined as well, and a solution of 20 to 49 tokens as one run of its own length.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_core.errors import ConfigError
from train.data.token_runs import hash_runs, hash_tokens, roll_runs, split_tokens

RUN_TOKENS = 50
# Shorter than this a solution is what anybody would write.
MIN_SOLUTION_TOKENS = 20
EVAL_DATA_VARIABLE = "UNMASK_EVAL_DATA"


@dataclass(frozen=True)
class EvalIndex:
    """Hashes of all runs of the evaluation sets [N], sorted, and which files they come from (name -> sha256).

    ``short`` holds, by their number of tokens, the hashes of solutions shorter than a run.
    """

    runs: npt.NDArray[np.uint64] = field(repr=False)
    files: Mapping[str, str]
    short: Mapping[int, npt.NDArray[np.uint64]] = field(default_factory=dict, repr=False)

    def contains_run(self, text: str) -> bool:
        """Whether the text shares a run with the evaluation sets, or holds a whole short solution of them."""
        known = {RUN_TOKENS: self.runs, **self.short}
        found = roll_runs(hash_tokens(split_tokens(text)), known.keys())
        return any(_is_any_in(hashes, known[length]) for length, hashes in found)


def _is_any_in(found: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> bool:
    """Whether one of ``found`` is in ``known``, which is sorted."""
    if not len(found) or not len(known):
        return False
    places = np.minimum(np.searchsorted(known, found), len(known) - 1)
    return bool((known[places] == found).any())


def find_eval_files(folder: Path | None) -> tuple[Path, ...]:
    """The evaluation files of a folder; None stands for ``UNMASK_EVAL_DATA``, else ``../shared/data``.

    Raises:
        ConfigError: there is no such folder, or no evaluation file in it.
    """
    root = Path(__file__).resolve().parents[2]
    chosen = folder or Path(os.environ.get(EVAL_DATA_VARIABLE) or root.parent / "shared" / "data")
    files = tuple(sorted([*chosen.glob("*.jsonl"), *chosen.glob("*.jsonl.gz")]))
    if not files:
        raise ConfigError(
            f"no evaluation files (*.jsonl, *.jsonl.gz) in {chosen}: a corpus is kept free of them, so name "
            f"their folder with --eval-data or {EVAL_DATA_VARIABLE}"
        )
    return files


def index_eval_files(files: Sequence[Path]) -> EvalIndex:
    """Index every text of the evaluation files.

    Raises:
        ConfigError: a file cannot be read as JSON lines.
    """
    runs: list[npt.NDArray[np.uint64]] = []
    short: dict[int, set[int]] = {}
    hashes: dict[str, str] = {}
    for path in files:
        try:
            raw = path.read_bytes()
            content = gzip.decompress(raw) if path.suffix == ".gz" else raw
            rows = [json.loads(line) for line in content.splitlines() if line.strip()]
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise ConfigError(f"evaluation file {path} cannot be read: {error}") from None
        hashes[path.name] = hashlib.sha256(raw).hexdigest()
        for row in rows:
            runs.extend(hash_runs(split_tokens(text), RUN_TOKENS) for text in _texts_of(row))
            for tokens in map(split_tokens, _solutions_of(row)):
                if MIN_SOLUTION_TOKENS <= len(tokens) < RUN_TOKENS:
                    short.setdefault(len(tokens), set()).update(hash_runs(tokens, len(tokens)).tolist())
    return EvalIndex(
        np.unique(np.concatenate(runs)) if runs else np.zeros(0, dtype=np.uint64),
        hashes,
        {length: np.array(sorted(found), dtype=np.uint64) for length, found in sorted(short.items())},
    )


def _texts_of(row: Any) -> Iterator[str]:
    """Every text of an item, every list of texts as one, and the whole that the item's parts make."""
    yield from _strings(row)
    if isinstance(row, dict):
        parts = [row.get(name) for name in ("prompt", "canonical_solution", "suffix")]
        yield "".join(part for part in parts if isinstance(part, str))
        whole = [row.get(name) for name in ("prompt", "text", "code", "canonical_solution", "test_list", "test")]
        yield "\n".join(text for part in whole for text in _strings(part))


def _solutions_of(row: Any) -> Iterator[str]:
    """An item's whole solution. What fills a hole is only a piece of one, and what anybody might write."""
    if isinstance(row, dict) and "suffix" not in row:
        yield from (row[name] for name in ("code", "canonical_solution") if isinstance(row.get(name), str))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
        yield "\n".join(item for item in value if isinstance(item, str))
