"""Small corpora: a few projects of made-up modules, collected and built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from helpers.eval_sets import make_hole, write_set
from helpers.source_trees import make_module, write_tree
from helpers.tiny_checkpoints import tiny_tokenizer
from tokenizers import Tokenizer

from diffusion_core.model.config import DiffusionConfig
from train.data.build import BuildConfig, build_corpus
from train.data.corpus import Counts
from train.data.decontaminate import EvalIndex, find_eval_files, index_eval_files
from train.data.infilling import InfillConfig
from train.data.manifest import SourceEntry, SourceKind
from train.data.sources import CollectedSource, collect_source

CONTRACT = DiffusionConfig(prompt_format="qwen2.5-coder/1", stop_token_ids=(256,))


def make_tokenizer() -> Tokenizer:
    """A byte tokenizer with the marker tokens."""
    return tiny_tokenizer()


def make_sources(folder: Path, names: Sequence[str] = ("alpha", "beta", "gamma", "delta")) -> list[CollectedSource]:
    """Projects of two modules each."""
    found = []
    for name in names:
        files = {f"{name}/core.py": make_module(name, 6), f"{name}/more.py": make_module(f"{name}_more", 4)}
        path = write_tree(folder / name, files)
        entry = SourceEntry(kind=SourceKind.FOLDER, name=name, url=str(path), licence="MIT")
        found.append(collect_source(entry, folder))
    return found


def make_evaluation(folder: Path) -> EvalIndex:
    """An evaluation set of one item."""
    folder.mkdir(exist_ok=True)
    write_set(folder / "a.jsonl", [make_hole(1)])
    return index_eval_files(find_eval_files(folder))


def small_config(**changes: object) -> BuildConfig:
    """A configuration with some holes and edits for small files."""
    fields: dict[str, object] = {
        "name": "tiny", "infill": InfillConfig(characters_per_hole=400), "held_out_share": 0.3, "shard_examples": 40,
    }  # fmt: skip
    return BuildConfig(**(fields | changes))  # type: ignore[arg-type]


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Say nothing."""


def make_corpus(folder: Path, **changes: object) -> tuple[Path, Counts]:
    """A built corpus and its counts."""
    corpus = folder / "corpus"
    counts = build_corpus(
        make_sources(folder / "src"), make_evaluation(folder / "eval"), corpus, small_config(**changes), ignore_progress
    )
    return corpus, counts
