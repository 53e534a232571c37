"""What a rewrite proposes, before it is verified and given a selection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Generic, TypeVar

from train.data.synthetic.patches import Patch
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.tree_source import TreeSource

Source = TypeVar("Source", bound=PythonSource | TreeSource)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Patches to a file and the words that ask for them.

    ``is_restored``: the file as its author wrote it is the answer, and the patched one is what the user starts from
    (a seeded bug, a docstring taken away). ``wordings`` are templates, ``slots`` their values
    (:mod:`train.data.instructions`). ``changes_comments_only``: both sides have the same syntax tree.
    ``needs_file``: the patches concern the top of the file, so only a selection of the whole file will do.
    """

    patches: tuple[Patch, ...]
    wordings: tuple[str, ...]
    slots: Mapping[str, str] = field(default_factory=dict)
    is_restored: bool = False
    changes_comments_only: bool = False
    needs_file: bool = False
    check: Callable[[str, str], bool] | None = None


@dataclass(frozen=True, kw_only=True)
class Rewrite(Generic[Source]):
    """One kind of edit. ``weight`` says how early it is tried among the others: rare kinds go first.

    ``propose`` yields proposals at places drawn from the generator, most of a file's possible ones or none;
    ``languages`` are editor language ids.
    """

    name: str
    propose: Callable[[Source, Random], Iterator[Proposal]]
    weight: float = 1.0
    languages: frozenset[str] = frozenset({"python"})
