"""Which edits are worth offering at a place: decided by language and by what stands there, without the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsprotocol.types import Diagnostic, DiagnosticSeverity, Range

from lsp_server.edit_scope import ScopeKind, find_scope, range_of_lines
from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax import SyntaxTree
from lsp_server.syntax.definitions import definition_node_at, describe, is_definition, outermost_wrapper
from lsp_server.syntax.tree import ancestors
from lsp_server.text_edits import Lines, whole_lines

if TYPE_CHECKING:
    from tree_sitter import Node

QUICK_FIX = "quickfix"
REWRITE = "refactor.rewrite"
MAX_FIXES = 3
MAX_TITLE_CHARACTERS = 60
MAX_MESSAGE_CHARACTERS = 1000
MAX_LINE_CHARACTERS = 200

_DOCUMENTED_KINDS = frozenset({"function", "method", "class", "struct", "interface", "type", "enum", "trait"})
_SCRIPT = "JSDoc comment"
_DOC_COMMENTS = {
    "python": "docstring", "javascript": _SCRIPT, "javascriptreact": _SCRIPT, "typescript": _SCRIPT,
    "typescriptreact": _SCRIPT, "go": "doc comment", "rust": "doc comment (///)", "java": "Javadoc comment",
    "c": "documentation comment", "cpp": "documentation comment",
}  # fmt: skip
# Where tests may stand in the file that they test.
_TESTS = {
    "python": "Keep this code as it is and write pytest tests for `{name}` right below it.",
    "rust": "Keep this code as it is and write tests for `{name}` right below it, in a `#[cfg(test)] mod tests`.",
}
_HINTED = frozenset({"python", "typescript", "typescriptreact"})
_UNTYPED = frozenset({"identifier", "default_parameter", "list_splat_pattern", "dictionary_splat_pattern"})


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An edit that could be made. Without an ``instruction`` the user is to be asked for one."""

    title: str
    kind: str
    range: Range
    instruction: str = ""
    diagnostic: Diagnostic | None = None


@dataclass(frozen=True)
class Place:
    """A selection (or a cursor) in a document and the document's tree."""

    snapshot: Snapshot
    range: Range
    tree: SyntaxTree | None


def offers_at(place: Place, diagnostics: list[Diagnostic], max_lines: int) -> list[Offer]:
    """All offers, those that fix something first. A definition of more than ``max_lines`` is not offered."""
    offers = [_fix(place, diagnostic, max_lines) for diagnostic in _worst(diagnostics)]
    scope = find_scope(place.snapshot, place.range, place.tree)
    offers.append(Offer(title="Unmask: edit with instruction…", kind=REWRITE, range=scope.range))
    node = _definition(place)
    if node is not None and place.tree is not None:
        offers += _of_definition(place.snapshot, place.tree, node, max_lines)
    return offers


def _worst(diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    """Errors before warnings before the rest; hints are mere colouring."""
    serious = [one for one in diagnostics if one.severity is not DiagnosticSeverity.Hint and one.message.strip()]
    return sorted(serious, key=lambda one: one.severity or DiagnosticSeverity.Error)[:MAX_FIXES]


def _fix(place: Place, diagnostic: Diagnostic, max_lines: int) -> Offer:
    """The definition around a diagnostic is rewritten, if it is not too long; else the diagnostic's own lines."""
    snapshot = place.snapshot
    start = snapshot.point_at(diagnostic.range.start)
    scope = find_scope(snapshot, snapshot.range_between(start, start), place.tree)
    wanted, own = scope.range, whole_lines(snapshot, diagnostic.range)
    if scope.kind is not ScopeKind.DEFINITION or wanted.end.line - wanted.start.line > max_lines:
        wanted = range_of_lines(snapshot, own)
    message = " ".join(diagnostic.message.split())
    instruction = f"Fix this problem: {message[:MAX_MESSAGE_CHARACTERS]}"
    line = snapshot.content(start.line).strip()
    if line and own.end - own.first < wanted.end.line - wanted.start.line:
        instruction += f"\nIt was found in this line: {line[:MAX_LINE_CHARACTERS]}"
    title = message if len(message) <= MAX_TITLE_CHARACTERS else message[: MAX_TITLE_CHARACTERS - 1] + "…"
    return Offer(
        title=f"Unmask: fix {title}", kind=QUICK_FIX, range=wanted, instruction=instruction, diagnostic=diagnostic
    )


def _definition(place: Place) -> Node | None:
    """The definition that the whole selection lies in."""
    if place.tree is None:
        return None
    start, end = place.snapshot.point_at(place.range.start), place.snapshot.point_at(place.range.end)
    if start == end and not place.snapshot.content(start.line).strip():
        return None
    node = definition_node_at(place.tree, start)
    if node is None or place.tree.end_of(outermost_wrapper(place.tree, node)) < end != Point(end.line, 0):
        return None
    return node


def _of_definition(snapshot: Snapshot, tree: SyntaxTree, node: Node, max_lines: int) -> list[Offer]:
    definition = describe(tree, node)
    lines = Lines(definition.first_line, definition.end_line)
    offers: list[Offer] = []
    if not definition.name:
        return offers
    what = f"the {definition.kind} `{definition.name}`"

    def offer(title: str, lines: Lines, instruction: str) -> None:
        if lines.end - lines.first <= max_lines:
            wanted = range_of_lines(snapshot, lines)
            offers.append(Offer(title=f"Unmask: {title}", kind=REWRITE, range=wanted, instruction=instruction))

    comment = _DOC_COMMENTS.get(tree.language)
    if comment and definition.kind in _DOCUMENTED_KINDS and not _is_documented(tree, node, lines.first):
        offer("add docstring", lines, f"Add a {comment} to {what}. Change nothing else.")
    if tree.language in _HINTED and _lacks_hints(tree, node):
        hints = f"Add type hints to the parameters and the return value of {what}. Change nothing else."
        offer("add type hints", lines, hints)
    if tree.language in _TESTS and not _is_test(snapshot, definition.name):
        outermost = [found for found in ancestors(node) if is_definition(tree, found)][-1]
        whole = describe(tree, outermost)
        instruction = _TESTS[tree.language].format(name=definition.name)
        offer("write tests", Lines(whole.first_line, whole.end_line), instruction)
    return offers


def _is_documented(tree: SyntaxTree, node: Node, first_line: int) -> bool:
    """Whether a definition has its docstring, or a comment right above it."""
    if tree.language == "python":
        body = node.child_by_field_name("body")
        first = body.named_children[0] if body is not None and body.named_children else None
        inner = first.named_children[0] if first is not None and first.named_children else None
        return first is not None and "string" in {first.type, inner.type if inner is not None else ""}
    begin = outermost_wrapper(tree, node).start_point[0]
    return any(tree.lines[line].lstrip().startswith(("//", "/*", "*")) for line in range(first_line, begin))


def _lacks_hints(tree: SyntaxTree, node: Node) -> bool:
    """Whether a function has a parameter or a return value without a type."""
    value = node.child_by_field_name("value")  # of `const f = () => ...`
    function = node if value is None else value
    parameters = function.child_by_field_name("parameters")
    if parameters is None:
        return False
    if tree.language == "python":
        own = [one for one in parameters.named_children if tree.text_of(one) not in {"self", "cls"}]
        return function.child_by_field_name("return_type") is None or any(one.type in _UNTYPED for one in own)
    is_constructor = tree.text_of(name) == "constructor" if (name := node.child_by_field_name("name")) else False
    lacks_result = function.child_by_field_name("return_type") is None and not is_constructor
    return lacks_result or any(
        one.child_by_field_name("type") is None for one in parameters.named_children if one.type.endswith("_parameter")
    )


def _is_test(snapshot: Snapshot, name: str) -> bool:
    """Whether the file or the definition is a test already."""
    file = snapshot.uri.rsplit("/", 1)[-1].lower()
    return "test" in file or name.lower().startswith("test")
