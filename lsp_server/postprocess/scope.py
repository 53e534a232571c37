"""An answer ends where the place ends that it was written for: by depth, by syntax or by brackets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diffusion_core.scope import IndentedScope
from lsp_server.brackets import balance_of
from lsp_server.postprocess.closers import replace_closers
from lsp_server.postprocess.proposal import Place, Proposal, Syntax
from lsp_server.snapshot import Point
from lsp_server.syntax.definitions import is_definition
from lsp_server.syntax.indentation import begins_definition, closes_block, indent_of
from lsp_server.syntax.tree import SyntaxTree, ancestors

if TYPE_CHECKING:
    from tree_sitter import Node

_OPENERS = frozenset("([{")
_AFTER_BRACE = ")]};,"


def stop_at_scope(proposal: Proposal, place: Place) -> Proposal:
    """Cut an answer of several lines behind its block: by syntax, else by brackets, else by indentation."""
    text = proposal.text
    if place.single_line or "\n" not in text:
        return proposal
    end = None
    if place.syntax is not None and not place.syntax.tree.kinds.has_braces:
        end = _end_by_depth(proposal, place, place.syntax)
    elif place.syntax is not None:
        num_replaced = replace_closers(proposal, place).num_replaced
        end = _end_by_syntax(replace(proposal, num_replaced=num_replaced), place.syntax)
    if end is None:
        end = _end_by_brackets(text) if place.syntax is not None else _end_by_indentation(text, place.head)
    return replace(proposal, text=text[:end].rstrip("\n") if text[end:].strip() else text)


def _end_by_depth(proposal: Proposal, place: Place, syntax: Syntax) -> int:
    """Length of the text up to the first line that leaves the cursor's place, where depth means nesting."""
    prefix = "\n".join((*syntax.tree.lines[: syntax.point.line], place.head))
    suffix = "\n".join((place.rest, *syntax.tree.lines[syntax.point.line + 1 :]))
    lines = proposal.text.split("\n")
    num_replaced = replace_closers(proposal, place).num_replaced
    tree = syntax.with_text(proposal.text, num_replaced)
    first = syntax.point.line
    continued = {i for i in range(1, len(lines)) if _is_continued(tree, Point(first + i, 0))}
    outside = IndentedScope(prefix, suffix).first_outside(lines, continued)
    return len("\n".join(lines[:outside]))


def _is_continued(tree: SyntaxTree, point: Point) -> bool:
    """Whether a line begins inside a string or a bracket."""
    start = tree.byte_at(point)
    for node in ancestors(tree.root.descendant_for_byte_range(start, start)):
        is_inside = node.start_byte < start < node.end_byte
        opens = node.type in tree.kinds.strings or (node.children and node.children[0].type in _OPENERS)
        if is_inside and opens and not node.has_error:
            return True
    return False


def _end_by_syntax(proposal: Proposal, syntax: Syntax) -> int | None:
    """Length of the text up to the end of its block; None where the tree does not know."""
    tree = syntax.with_text(proposal.text, proposal.num_replaced)
    start = tree.byte_at(syntax.point)
    end = start + len(proposal.text.encode(errors="replace"))
    scope = _scope_at(tree, start)
    if scope is None:
        return len(proposal.text) if not tree.root.has_error else None
    if scope.has_error:
        return None
    if scope.end_byte >= end:
        return len(proposal.text)
    inside = tree.source[start : scope.end_byte].decode(errors="replace")
    last = scope
    while last.children:
        last = last.children[-1]
    if last.type != "}" or last.is_missing or last.start_byte < start:
        return None
    return _with_closers(proposal.text, len(inside))


def _scope_at(tree: SyntaxTree, start: int) -> Node | None:
    """The innermost block or definition that began before the byte ``start`` and holds it; None at the top level."""
    for node in ancestors(tree.root.descendant_for_byte_range(start, start)):
        if node.parent is None:
            return None
        if node.start_byte < start:
            is_block = node.type in tree.kinds.bodies and node.end_byte > start
            if is_block or is_definition(tree, node):
                return node
    return None


def _end_by_brackets(text: str) -> int:
    """Up to the first brace that closes what the text did not open."""
    closed = next((index for index in balance_of(text).closed if text[index] == "}"), None)
    return len(text) if closed is None else _with_closers(text, closed + 1)


def _with_closers(text: str, end: int) -> int:
    """What closes the call or the statement around a block, on the same line, stays with it."""
    while end < len(text) and text[end] in _AFTER_BRACE:
        end += 1
    return end


def _end_by_indentation(text: str, head: str) -> int:
    """Up to the first line that is less deep than the line of the cursor; a closing line there still belongs to it."""
    first, *others = text.split("\n")
    whole = head + first
    least = indent_of(whole) + (1 if begins_definition(whole) else 0)
    position = len(first)
    for line in others:
        if line.strip() and indent_of(line) < least:
            return position + 1 + len(line) if closes_block(line) else position
        position += 1 + len(line)
    return len(text)
