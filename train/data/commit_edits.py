"""Edits from history: what a commit changed in one place, with its message as the instruction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from random import Random

from train.data.commit_messages import clean_message
from train.data.examples import EditExample, ExampleKind, Origin
from train.data.git_history import BlobReader, Commit, FileChange, read_commits
from train.data.source_files import MAX_FILE_BYTES, is_source_path, read_source
from train.data.synthetic.patches import Span
from train.data.synthetic.python_source import PythonSource, parse_python
from train.data.synthetic.regions import Region, choose_selection
from train.data.synthetic.selection import find_regions
from train.data.synthetic.tree_source import has_grammar, parse_tree

_TEST_PATH = re.compile(
    r"(^|/)(tests?|testing|spec|__tests__)/|(^|/)(test_[^/]*|conftest)\.py$|[._-](test|spec)\.[a-z]+$", re.IGNORECASE
)
# Set-up, documentation and sample code is edited for reasons that its text does not show.
_META_PATH = re.compile(
    r"(^|/)(docs?|examples?|benchmarks?|scripts?|tools|ci)/|(^|/)(setup|conf|noxfile|fabfile|__version__|_?version)\.py$",
    re.IGNORECASE,
)
_ABOUT_TESTS = re.compile(r"\b(tests?|testing|tested|test case|coverage|assertions?)\b", re.IGNORECASE)
MIN_SELECTION_CHARACTERS = 20
_VERSION_LINE = re.compile(r"(version|__version__|release)\b.*\d", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CommitEditConfig:
    """What counts as a small edit. ``max_files`` counts the code files beside tests; sizes are characters and lines."""

    max_files: int = 3
    max_changed_lines: int = 50
    max_region_lines: int = 70
    max_selection_characters: int = 2_400


def collect(
    git_folder: Path,
    *,
    limit: int = 0,
    name: str = "",
    licence: str = "",
    revision: str = "HEAD",
    config: CommitEditConfig | None = None,
) -> Iterator[EditExample]:
    """The edits of a repository's history, newest first, at most ``limit`` (0: all).

    Args:
        git_folder: a bare repository, or the ``.git`` of another.
        limit: how many edits to yield.
        name: of the repository, for the origin; the folder's own name where it is empty.
        licence: SPDX name for the origin.
        revision: whose history to read.
        config: what counts as a small edit.

    Raises:
        CorpusError: git is missing, or the folder is no repository.
    """
    config = config or CommitEditConfig()
    name = (
        name or git_folder.resolve().parent.name * (git_folder.name == ".git") or git_folder.name.removesuffix(".git")
    )
    num_yielded = 0
    with BlobReader(git_folder) as blobs:
        for commit in read_commits(git_folder, revision):
            for example in _edits_of(commit, blobs, name, licence, config):
                yield example
                num_yielded += 1
                if num_yielded == limit:
                    return


def _edits_of(
    commit: Commit, blobs: BlobReader, name: str, licence: str, config: CommitEditConfig
) -> Iterator[EditExample]:
    """The edits of one commit: one for each code file that it changes a little."""
    chosen = _choose_files(commit, config)
    instruction = clean_message(commit.message, commit.author, commit.email) if chosen else None
    if instruction is None:
        return
    for change in chosen:
        if _ABOUT_TESTS.search(instruction) and not _TEST_PATH.search(change.path):
            continue  # the message is about another file of the commit
        texts = [_read(blobs, change, blob) for blob in (change.old_blob, change.new_blob)]
        if texts[0] is None or texts[1] is None:
            continue
        (before, language), (after, _) = texts[0], texts[1]
        origin = Origin(source=f"{name}@{commit.hash}", path=change.path, licence=licence, language=language)
        example = make_commit_edit(before, after, instruction, origin, config)
        if example is not None and (len(chosen) == 1 or _mentions_change(instruction, example)):
            yield example


def _choose_files(commit: Commit, config: CommitEditConfig) -> list[FileChange]:
    """The files that carry out what the message says; empty where the commit does more than change a few."""
    code = [change for change in commit.changes if is_source_path(change.path)]
    code = [change for change in code if not _META_PATH.search(change.path)]
    main = [change for change in code if not _TEST_PATH.search(change.path)] or code
    if not 1 <= len(main) <= config.max_files or len(commit.changes) > 4 * config.max_files:
        return []
    # A new or deleted code file is part of what the message describes, and no edit of one file can do it.
    return main if all(change.status == "M" for change in main) else []


def _read(blobs: BlobReader, change: FileChange, blob: str) -> tuple[str, str] | None:
    """Text and language of a version of the file; None where it is not worth learning from."""
    raw = blobs.read(blob, MAX_FILE_BYTES)
    if raw is None or b"\r" in raw or b"\f" in raw:
        return None
    file, _ = read_source(change.path, raw)
    return None if file is None else (file.text if file.text.endswith("\n") else file.text + "\n", file.language)


def make_commit_edit(
    before: str, after: str, instruction: str, origin: Origin, config: CommitEditConfig
) -> EditExample | None:
    """The edit that turns one version of a file into the next; None where it is too large, or not about the code.

    The selection is what lies around all changed lines: a few lines, a function or a class.
    """
    changed = _changed_region(before, after, config)
    if changed is None:
        return None
    growth = len(after) - len(before)
    regions = _regions(before, changed, origin)
    if not regions or not _parses(after, origin.language):
        return None

    def accepts(span: Span) -> bool:
        sizes = (len(span), len(span) + growth)
        is_seen = len(before[span.start : span.end].strip()) >= MIN_SELECTION_CHARACTERS
        return span.contains(changed) and is_seen and min(sizes) > 0 and max(sizes) <= config.max_selection_characters

    generator = Random(f"{origin.source}/{origin.path}")  # noqa: S311 - reproducible, no secret
    selection = choose_selection(regions, accepts, generator)
    if selection is None:
        return None
    edited = after[selection.start : selection.end + growth]
    if _squeezed(edited) == _squeezed(before[selection.start : selection.end]):
        return None
    return EditExample(
        kind=ExampleKind.EDIT_COMMIT,
        before=before,
        start=selection.start,
        end=selection.end,
        edited=edited,
        instruction=instruction,
        rewrite="",
        origin=origin,
    )


def _changed_region(before: str, after: str, config: CommitEditConfig) -> Span | None:
    """The lines of the old text from the first to the last change; None where they are too many, or only a version."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    removed, added = old[head : len(old) - tail], new[head : len(new) - tail]
    if max(len(removed), len(added)) > config.max_region_lines or not (removed or added):
        return None
    matcher = SequenceMatcher(None, removed, added, autojunk=False)
    changed = [
        line for tag, i, j, k, m in matcher.get_opcodes() if tag != "equal" for line in (*removed[i:j], *added[k:m])
    ]
    if len(changed) > config.max_changed_lines or all(_VERSION_LINE.search(line) for line in changed):
        return None
    start = sum(map(len, old[:head]))
    return Span(start, start + sum(map(len, removed)))


def _regions(text: str, changed: Span, origin: Origin) -> list[Region]:
    """What could be selected around the change; empty where the file does not parse."""
    generator = Random(f"{origin.source}/{origin.path}/lines")  # noqa: S311 - reproducible, no secret
    if origin.language == "python":
        tree = parse_python(text)
        return [] if tree is None else find_regions(PythonSource(text, tree), changed, generator)
    if not has_grammar(origin.language):
        return []
    source = parse_tree(text, origin.language)
    return [] if source is None else source.find_regions(changed, generator)


def _parses(text: str, language: str) -> bool:
    return parse_python(text) is not None if language == "python" else parse_tree(text, language) is not None


def _squeezed(text: str) -> str:
    """The text without white space: a change of nothing else is formatting."""
    return "".join(text.split())


def _mentions_change(instruction: str, example: EditExample) -> bool:
    """Whether the instruction names something that the edit adds or removes."""
    sides = [set(re.findall(r"[A-Za-z_]{4,}", side)) for side in (example.selection, example.edited)]
    return bool(set(re.findall(r"[A-Za-z_]{4,}", instruction)) & (sides[0] ^ sides[1]))
