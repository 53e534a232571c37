"""Add the documentation comment, or the comments inside a function, that the author wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from train.data.instructions import first_sentence
from train.data.synthetic.patches import Patch, Span
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.tree_source import CLASSES, COMMENTS, FUNCTIONS, TreeSource

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_LINES = 14
_ALL = frozenset({"javascript", "javascriptreact", "typescript", "typescriptreact", "go", "rust", "java", "c", "cpp"})
_NO_PROSE = re.compile(
    r"eslint|@ts-|prettier|istanbul|nolint|noinspection|todo|fixme|xxx|copyright|license|go:|\+build|rustfmt|clang|-{4}|={4}|\*{5}",
    re.IGNORECASE,
)

_DOC_WORDINGS = (
    "Add a doc comment to {name}",
    "Document {name}",
    "add documentation",
    "Write a documentation comment for {name}",
    "{name} has no doc comment, add one",
    "Add {form_text} to {name}",
    "Describe what {name} does in a comment above it",
    "Add {form_text} to {name}: {summary_text}",
    "Document {name}. It should say: {summary_text}.",
    "Add a comment above {name} that explains it ({summary_text})",
    "What does {name} do? Add a doc comment.",
)
_INNER_WORDINGS = (
    'Add the comment "{summary_text}"',
    "Add a comment to {name}: {summary_text}",
    "Comment on this: {summary_text}",
    "Say in a comment that {summary_text}",
    "Explain in a comment in {name}: {summary_text}",
    "Comment the non-obvious part of {name}",
    "add a comment that explains this",
    "Add a comment to {name}",
    'Put a comment "{summary_text}" where it belongs in {name}',
)


def propose_doc(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """The comments right above functions and types."""
    nodes = [node for node in source.nodes if node.type in FUNCTIONS | CLASSES and source.name_of(_declared(node))]
    generator.shuffle(nodes)
    for node in nodes:
        outer = node.parent if node.parent is not None and node.parent.type == "export_statement" else node
        span = _comments_above(source, outer)
        if span is None:
            continue
        words = _words(source.text[span.start : span.end])
        if len(words) < 20 or _NO_PROSE.search(words) or not words.isascii():
            continue
        is_block = source.text[span.start : span.end].lstrip().startswith("/*")
        yield Proposal(
            patches=(Patch(span.start, span.end, ""),),
            wordings=_DOC_WORDINGS,
            slots={
                "name": source.name_of(_declared(node)),
                "summary_text": first_sentence(words)[:160],
                "form_text": _form(source.language, is_block=is_block),
            },
            is_restored=True,
            changes_comments_only=True,
        )


def propose_inner(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """One run of comment lines inside a function."""
    functions = source.functions[:]
    generator.shuffle(functions)
    for function in functions:
        body = function.child_by_field_name("body")
        found = [node for node in source.walk(body) if node.type in COMMENTS] if body is not None else []
        groups = _groups(source, found)
        generator.shuffle(groups)
        for span in groups[:1]:
            words = _words(source.text[span.start : span.end])
            if (
                15 <= len(words) <= 160
                and words.isascii()
                and len(words.split()) >= 4
                and not _NO_PROSE.search(words)
                and ";" not in words
            ):
                yield Proposal(
                    patches=(Patch(span.start, span.end, ""),),
                    wordings=_INNER_WORDINGS,
                    slots={"name": source.name_of(function), "summary_text": " ".join(words.split()).rstrip(".:")},
                    is_restored=True,
                    changes_comments_only=True,
                )


def _declared(node: Node) -> Node:
    """The part of a declaration that has the name: Go writes ``type Name struct`` as a specification inside."""
    if node.type == "type_declaration":
        return next((child for child in node.named_children if child.child_by_field_name("name") is not None), node)
    return node


def _comments_above(source: TreeSource, node: Node) -> Span | None:
    """The lines of the comments that end right above the node; None where there are none, or too many."""
    top = node.start_point[0]
    first: Node | None = None
    previous = node.prev_named_sibling
    while previous is not None and previous.type in COMMENTS and _last_line(previous) == top - 1:
        line = source.lines(source.span(previous))
        if source.text[line.start : source.span(previous).start].strip():
            break
        first, top = previous, previous.start_point[0]
        previous = previous.prev_named_sibling
    if first is None or node.start_point[0] - top > MAX_LINES:
        return None
    last = node.prev_named_sibling
    assert last is not None
    end = source.lines(Span(source.span(last).start, source.span(last).end)).end
    return Span(source.lines(source.span(first)).start, min(end, source.lines(source.span(node)).start))


def _last_line(node: Node) -> int:
    """The line of the comment's last character; some grammars count the line break as part of it."""
    row, column = node.end_point[0], node.end_point[1]
    return row - 1 if column == 0 else row


def _groups(source: TreeSource, comments: list[Node]) -> list[Span]:
    """Runs of comments that have their lines for themselves."""
    groups: list[Span] = []
    for node in comments:
        span = source.span(node)
        text = source.text[span.start : span.end]
        lines = source.lines(Span(span.start, span.start + len(text.rstrip("\n"))))
        alone = source.text[lines.start : lines.end].strip() == text.strip()
        if not alone:
            continue
        if groups and groups[-1].end == lines.start:
            groups[-1] = Span(groups[-1].start, lines.end)
        else:
            groups.append(lines)
    return groups


def _words(comment: str) -> str:
    lines = [
        re.sub(r"^\s*(///?!?|//!|/\*+!?|\*(?!/))\s?|\s*\*+/\s*$", "", line).strip() for line in comment.splitlines()
    ]
    return "\n".join(lines).strip().replace("*/", "").strip()


def _form(language: str, *, is_block: bool) -> str:
    if language.startswith(("javascript", "typescript")):
        return "a JSDoc comment" if is_block else "a comment"
    return {"java": "Javadoc", "go": "a godoc comment", "rust": "a doc comment"}.get(language, "a comment")


REWRITES = (
    Rewrite(name="doc_comment", propose=propose_doc, languages=_ALL, weight=0.7),
    Rewrite(name="comments", propose=propose_inner, languages=_ALL, weight=0.7),
)
