"""Decontamination: no training text shares a run of 50 tokens with a prompt, solution or test of an evaluation set."""

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
from train.data.token_runs import hash_runs, split_tokens

RUN_TOKENS = 50
EVAL_DATA_VARIABLE = "UNMASK_EVAL_DATA"


@dataclass(frozen=True)
class EvalIndex:
    """Hashes of all runs of the evaluation sets [N], sorted, and which files they come from (name -> sha256)."""

    runs: npt.NDArray[np.uint64] = field(repr=False)
    files: Mapping[str, str]

    def contains_run(self, text: str) -> bool:
        """Whether the text shares a run with the evaluation sets."""
        found = hash_runs(split_tokens(text), RUN_TOKENS)
        if not len(found) or not len(self.runs):
            return False
        places = np.minimum(np.searchsorted(self.runs, found), len(self.runs) - 1)
        return bool((self.runs[places] == found).any())


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
    return EvalIndex(np.unique(np.concatenate(runs)) if runs else np.zeros(0, dtype=np.uint64), hashes)


def _texts_of(row: Any) -> Iterator[str]:
    """Every text of an item, and the whole program that its parts make."""
    yield from _strings(row)
    if isinstance(row, dict):
        parts = [row.get(name) for name in ("prompt", "canonical_solution", "suffix")]
        yield "".join(part for part in parts if isinstance(part, str))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
