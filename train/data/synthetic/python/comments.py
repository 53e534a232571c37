"""Add the comments that the author wrote inside a function."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_NO_PROSE = re.compile(
    r"#\s*(noqa|type:|pylint|pragma|fmt:|mypy|todo|fixme|xxx|isort|!|pyright|nosec|ruff|-{3}|={3})", re.IGNORECASE
)

_WORDINGS = (
    "Add comments to {name}",
    "Comment the non-obvious parts of {name}",
    "add a comment that explains this",
    "Explain the code of {name} with comments",
    "Add explanatory comments, do not change the code",
    "{name} is hard to follow; comment it",
    "Write comments in {name} that say why, not what",
    "Add inline comments to {name}",
    "Could you comment this code?",
)
_ONE_WORDINGS = (
    'Add the comment "{comment_text}"',
    "Add a comment to {name}: {comment_text}",
    "Comment on this: {comment_text}",
    "Say in a comment that {comment_text}",
    "Explain in a comment in {name}: {comment_text}",
    'Put a comment "{comment_text}" where it belongs in {name}',
    "add a comment that explains this",
    "Add a comment to {name}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """All prose comments of a random function."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        span = source.lines(function)
        groups = _comment_groups(source, span.start, span.end)
        if not groups or len(groups) > 4:
            continue
        words = " ".join(
            line.strip().lstrip("# ") for line in source.text[groups[0].start : groups[0].end].splitlines()
        )
        is_one = len(groups) == 1 and len(words) < 120
        yield Proposal(
            patches=tuple(groups),
            wordings=_ONE_WORDINGS if is_one else _WORDINGS,
            slots={"name": function.name, "comment_text": words.rstrip(".:")},
            is_restored=True,
            changes_comments_only=True,
        )


def _comment_groups(source: PythonSource, start: int, end: int) -> list[Patch]:
    """Patches that take away the runs of comment lines; empty where one of the comments is no prose."""
    patches: list[Patch] = []
    for position, comment in source.comments:
        if not start <= position < end:
            continue
        line = source.line_of(position)
        if source.text[line.start : position].strip():
            continue  # a comment after code is most often a directive or belongs to the value
        if _NO_PROSE.match(comment) or len(comment.split()) < 4 or _is_code(comment):
            return []
        if patches and patches[-1].end == line.start:
            patches[-1] = Patch(patches[-1].start, line.end, "")
        else:
            patches.append(Patch(line.start, line.end, ""))
    return patches


def _is_code(comment: str) -> bool:
    try:
        tree = ast.parse(comment.lstrip("# ").strip())
    except (SyntaxError, ValueError):
        return False
    return bool(tree.body) and not isinstance(tree.body[0], ast.Expr)


REWRITE = Rewrite(name="comments", propose=propose, weight=0.7)
