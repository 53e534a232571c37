"""Building a corpus: collected sources -> files without copies and evaluation texts -> examples, split by project."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from diffusion_core.checkpoints.atomic import new_folder
from diffusion_core.errors import ConfigError
from train.data.corpus import CorpusWriter, Counts
from train.data.decontaminate import EvalIndex
from train.data.deduplicate import DedupConfig, deduplicate
from train.data.errors import CorpusError
from train.data.examples import Example, Origin
from train.data.infilling import InfillConfig, make_infills
from train.data.source_files import LANGUAGES, SourceFile
from train.data.sources import CollectedSource


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """How a corpus is made. ``manifests`` are names of our own ones (:func:`manifest.own_manifests`).

    ``languages`` empty takes all. ``max_source_bytes`` bounds what one source gives, so that no large project drowns
    the others. ``held_out_share`` is the share of projects kept for evaluation, at least one.
    ``synthetic_per_file`` and ``max_commits`` (edits of one repository's history) of 0 switch those edits off.
    """

    name: str
    manifests: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    infill: InfillConfig = field(default_factory=InfillConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    held_out_share: float = 0.06
    max_source_bytes: int = 2_000_000
    synthetic_per_file: int = 2
    max_commits: int = 2000
    shard_examples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.languages) - set(LANGUAGES))
        if unknown:
            raise ConfigError(f"languages: {unknown[0]!r} is unknown; known are {', '.join(LANGUAGES)}")
        if not 0 < self.held_out_share < 1:
            raise ConfigError(f"held_out_share is {self.held_out_share}: allowed is above 0, below 1")
        for name in ("max_source_bytes", "shard_examples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: at least 1")


@dataclass(frozen=True)
class SplitFile:
    """A file that stays, with its source and its split."""

    source: CollectedSource
    file: SourceFile
    split: str


OnProgress = Callable[[str, int, int], None]


def build_corpus(
    sources: Sequence[CollectedSource],
    evaluation: EvalIndex,
    folder: Path,
    config: BuildConfig,
    on_progress: OnProgress,
) -> Counts:
    """Make a corpus folder, whole or not at all. ``on_progress`` is told a stage, how much of it is done, of how much.

    Raises:
        CorpusError: nothing is left to learn from, or a split would be empty.
    """
    splits = split_projects(sources, config.held_out_share, config.seed)
    with new_folder(folder) as draft:
        writer = CorpusWriter(draft, config.shard_examples)
        files = _select_files(sources, splits, evaluation, config, writer.counts)
        for number, chosen in enumerate(files):
            on_progress("examples of files", number, len(files))
            for example in _examples_of(chosen, config):
                writer.add(chosen.split, example)
        for number, source in enumerate(sources):
            on_progress("edits of commits", number, len(sources))
            for example in _commit_edits(source, config, evaluation, writer.counts):
                writer.add(splits[source.entry.project], example)
        _require_both_splits(writer.counts)
        writer.finish(_describe(sources, splits, evaluation, config))
    return writer.counts


def split_projects(sources: Sequence[CollectedSource], held_out_share: float, seed: int) -> dict[str, str]:
    """Which split every project belongs to: by a hash of its name, so that another version stays where it was.

    At least one project is held out, and one with a history if there are three such, for edits of commits.

    Raises:
        CorpusError: fewer than two projects cannot be split.
    """
    projects = {source.entry.project for source in sources}
    if len(projects) < 2:
        raise CorpusError(
            "a corpus is split by project, and there is "
            + (f"only {min(projects)!r}: add another source" if projects else "none: the manifest gave no source")
        )
    places = {project: _unit_hash(f"{seed}/{project}") for project in sorted(projects)}
    ranked = sorted(projects, key=lambda project: places[project])
    with_history = {source.entry.project for source in sources if source.git_folder is not None}
    held_out = {ranked[0]} | {project for project in projects if places[project] < held_out_share}
    if len(with_history) >= 3:
        held_out.add(next(project for project in ranked if project in with_history))
    held_out -= {ranked[-1]}
    return {project: "held_out" if project in held_out else "train" for project in ranked}


def _unit_hash(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _select_files(
    sources: Sequence[CollectedSource],
    splits: dict[str, str],
    evaluation: EvalIndex,
    config: BuildConfig,
    counts: Counts,
) -> list[SplitFile]:
    """The files that stay: in a wanted language, within the source's share, unlike evaluation texts and each other."""
    # Held-out files come first, so that of two copies the one in training goes.
    ordered = sorted(sources, key=lambda source: (splits[source.entry.project] != "held_out", source.entry.label))
    chosen: list[SplitFile] = []
    for source in ordered:
        counts.left_out.update({f"file: {reason}": number for reason, number in source.left_out.items()})
        taken = 0
        for file in _shuffled(source, config.seed):
            if config.languages and file.language not in config.languages:
                counts.left_out["file: language not wanted"] += 1
            elif taken + len(file.text) > config.max_source_bytes:
                counts.left_out["file: beyond the share of its source"] += 1
            elif evaluation.contains_run(file.text):
                counts.left_out["file: shares a run with an evaluation set"] += 1
            else:
                taken += len(file.text)
                chosen.append(SplitFile(source, file, splits[source.entry.project]))
    if not chosen:
        raise CorpusError(f"no file is left to learn from: {dict(counts.left_out)}")
    result = deduplicate([item.file.text for item in chosen], config.dedup)
    counts.left_out["file: exact copy"] += result.num_exact
    counts.left_out["file: near copy"] += result.num_near
    return [chosen[number] for number in result.kept]


def _shuffled(source: CollectedSource, seed: int) -> list[SourceFile]:
    files = list(source.files)
    random.Random(f"{seed}/{source.entry.label}").shuffle(files)  # noqa: S311 - reproducible, no secret
    return files


def _origin(source: CollectedSource, path: str, language: str) -> Origin:
    return Origin(source=source.entry.label, path=path, licence=source.entry.licence, language=language)


def _examples_of(chosen: SplitFile, config: BuildConfig) -> Iterator[Example]:
    file, origin = chosen.file, _origin(chosen.source, chosen.file.path, chosen.file.language)
    generator = random.Random(f"{config.seed}/{origin.source}/{file.path}")  # noqa: S311 - reproducible, no secret
    yield from make_infills(file, origin, config.infill, generator)
    if config.synthetic_per_file:
        from train.data.synthetic import make_edits

        yield from make_edits(file.text, file.language, origin, generator, config.synthetic_per_file)


def _commit_edits(
    source: CollectedSource, config: BuildConfig, evaluation: EvalIndex, counts: Counts
) -> Iterator[Example]:
    if source.git_folder is None or not config.max_commits:
        return
    from train.data import commit_edits

    entry = source.entry
    found = commit_edits.collect(
        source.git_folder, limit=config.max_commits, name=entry.name, licence=entry.licence, revision=entry.version
    )
    for example in found:
        if config.languages and example.origin.language not in config.languages:
            counts.left_out["edit: language not wanted"] += 1
        elif evaluation.contains_run(example.before) or evaluation.contains_run(example.after):
            counts.left_out["edit: shares a run with an evaluation set"] += 1
        else:
            yield example


def _require_both_splits(counts: Counts) -> None:
    for split in ("train", "held_out"):
        if not any(key[0] == split for key in counts.examples):
            raise CorpusError(f"the split {split!r} would be empty: add sources, or change the seed of the split")


def _describe(
    sources: Sequence[CollectedSource], splits: dict[str, str], evaluation: EvalIndex, config: BuildConfig
) -> dict[str, object]:
    return {
        "name": config.name,
        "config": asdict(config),
        "sources": [
            {**asdict(source.entry), "kind": source.entry.kind.value, "split": splits[source.entry.project]}
            for source in sources
        ],
        "evaluation_files": dict(evaluation.files),
    }
