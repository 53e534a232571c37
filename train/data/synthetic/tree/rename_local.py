"""Rename a local variable, with all its uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from train.data.instructions import read_words
from train.data.synthetic.naming import rename_value
from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.rename_variable import VARIABLE_WORDINGS
from train.data.synthetic.tree.locals import declared_names, find_uses
from train.data.synthetic.tree_source import TreeSource

# Names that Go gives always the same things.
_CONVENTIONAL = frozenset({"err", "ok", "ctx"})
# Words of any of the languages that no variable can be called.
_RESERVED = read_words(
    """
    append async auto await bool box break byte cap case chan char class const continue copy default defer delete do
    double dyn enum error export false final float func function go goto impl import in instanceof int interface len let
    long loop make map match mod move mut namespace new nil null of operator package private protected public range ref
    register return select self short signed static string struct super switch template this trait true type typeof
    undefined union unsafe unsigned use var void volatile where yield
    """
)


def propose(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """Renames in random functions."""
    functions = source.functions[:]
    generator.shuffle(functions)
    style = "snake_case" if source.language in ("rust", "c", "cpp") else "camelCase"
    for function in functions:
        names = [name for name in declared_names(source, function) if name not in _CONVENTIONAL]
        generator.shuffle(names)
        for old in names[:3]:
            new = rename_value(old, source.identifiers | _RESERVED, generator, style)
            spans = find_uses(source, function, old) if new is not None else None
            if new is None or spans is None:
                continue
            yield Proposal(
                patches=tuple(Patch(span.start, span.end, new) for span in spans),
                wordings=VARIABLE_WORDINGS,
                slots={"old": old, "new": new, "function": source.name_of(function)},
                check=lambda before, after, old=old, new=new: re.sub(rf"\b{new}\b", old, after) == before,  # type: ignore[misc]
            )
            break


REWRITE = Rewrite(
    name="rename_variable",
    propose=propose,
    languages=frozenset(
        {"javascript", "javascriptreact", "typescript", "typescriptreact", "go", "rust", "java", "c", "cpp"}
    ),
)
