"""A corpus folder: shards of examples, ``manifest.json`` (what it is made of) and ``counts.json`` (what it holds)."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from train.data.errors import CorpusError
from train.data.examples import EditExample, Example, from_json, to_json

FORMAT_VERSION = 1
MANIFEST_FILE, COUNTS_FILE = "manifest.json", "counts.json"
SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class Shard:
    """A file of examples; ``path`` is relative to the corpus."""

    path: str
    split: str
    sha256: str
    num_examples: int


@dataclass(frozen=True)
class Corpus:
    """What a corpus folder says about itself."""

    folder: Path
    shards: tuple[Shard, ...]
    description: Mapping[str, Any] = field(repr=False)

    def fingerprint(self, split: str) -> str:
        """A hash of the split's examples."""
        joined = "".join(shard.sha256 for shard in self.shards if shard.split == split)
        return hashlib.sha256(joined.encode()).hexdigest()

    def num_examples(self, split: str) -> int:
        """How many examples the split holds."""
        return sum(shard.num_examples for shard in self.shards if shard.split == split)


@dataclass
class Counts:
    """How much there is: examples and characters by (split, language, kind, licence), and what was left out, why."""

    examples: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    characters: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, split: str, example: Example) -> None:
        """Count one example; its characters are those that the model has to write."""
        key = (split, example.origin.language, example.kind.value, example.origin.licence)
        self.examples[key] += 1
        self.characters[key] += len(example.edited if isinstance(example, EditExample) else example.middle)

    def to_json(self) -> dict[str, Any]:
        """As stored in ``counts.json``."""
        rows = [
            {"split": key[0], "language": key[1], "kind": key[2], "licence": key[3], "examples": number,
             "characters": self.characters[key]}
            for key, number in sorted(self.examples.items())
        ]  # fmt: skip
        return {"examples": rows, "left_out": dict(sorted(self.left_out.items()))}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Counts:
        """The inverse of :meth:`to_json`."""
        counts = cls(left_out=Counter(stored["left_out"]))
        for row in stored["examples"]:
            key = (row["split"], row["language"], row["kind"], row["licence"])
            counts.examples[key], counts.characters[key] = row["examples"], row["characters"]
        return counts


class CorpusWriter:
    """Writes a corpus into a new folder: examples in shards, one at a time, then :meth:`finish`."""

    def __init__(self, folder: Path, shard_examples: int) -> None:
        self._folder, self._limit = folder, shard_examples
        self._rows: dict[str, list[str]] = {split: [] for split in SPLITS}
        self._shards: list[Shard] = []
        self.counts = Counts()

    def add(self, split: str, example: Example) -> None:
        """Append one example to a split."""
        rows = self._rows[split]
        rows.append(json.dumps(to_json(example), ensure_ascii=False))
        self.counts.add(split, example)
        if len(rows) >= self._limit:
            self._flush(split)

    def _flush(self, split: str) -> None:
        rows, self._rows[split] = self._rows[split], []
        if not rows:
            return
        number = sum(shard.split == split for shard in self._shards)
        name = f"{split}-{number:05d}.jsonl.gz"
        # Python strings may hold lone surrogates; JSON then carries them as they are.
        content = gzip.compress("".join(f"{row}\n" for row in rows).encode("utf-8", "surrogatepass"), 6, mtime=0)
        (self._folder / name).write_bytes(content)
        self._shards.append(Shard(name, split, hashlib.sha256(content).hexdigest(), len(rows)))

    def finish(self, description: Mapping[str, Any]) -> None:
        """Write what is left and the two JSON files."""
        for split in SPLITS:
            self._flush(split)
        stored = {
            "format": FORMAT_VERSION,
            **description,
            "shards": [asdict(shard) for shard in self._shards],
        }
        _write_json(self._folder / MANIFEST_FILE, stored)
        _write_json(self._folder / COUNTS_FILE, self.counts.to_json())


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def open_corpus(folder: Path) -> Corpus:
    """Read what a corpus folder says about itself.

    Raises:
        CorpusError: no corpus there, damaged, or of another format.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise CorpusError(f"{folder} is no corpus ({MANIFEST_FILE} is missing): make one with `unmask data build`")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version = stored["format"]
        if version != FORMAT_VERSION:
            raise CorpusError(f"{folder} has corpus format {version}, this is for {FORMAT_VERSION}: build it again")
        shards = tuple(Shard(**row) for row in stored["shards"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} is damaged ({type(error).__name__}: {error}): build the corpus again") from None
    return Corpus(folder, shards, stored)


def read_counts(folder: Path) -> Counts:
    """The counts of a corpus.

    Raises:
        CorpusError: missing or damaged.
    """
    path = folder / COUNTS_FILE
    try:
        return Counts.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} cannot be read ({type(error).__name__}): build the corpus again") from None


def read_examples(corpus: Corpus, split: str) -> Iterator[Example]:
    """Every example of a split, in the order it was written.

    Raises:
        CorpusError: the split does not exist or is empty, or a shard is missing or damaged.
    """
    if split not in SPLITS:
        raise CorpusError(f"split {split!r} is unknown: one of {', '.join(SPLITS)}")
    shards = [shard for shard in corpus.shards if shard.split == split]
    if not shards:
        raise CorpusError(f"{corpus.folder}: the split {split!r} is empty; build it from more sources")
    for shard in shards:
        path = corpus.folder / shard.path
        try:
            raw = path.read_bytes()
            if hashlib.sha256(raw).hexdigest() != shard.sha256:
                raise CorpusError(f"shard {path} is damaged (its sha256 is another one): build the corpus again")
            lines = gzip.decompress(raw).decode("utf-8", "surrogatepass").removesuffix("\n").split("\n")
            rows = [json.loads(line) for line in lines]
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise CorpusError(f"shard {path} cannot be read ({error}): build the corpus again") from None
        yield from map(from_json, rows)
