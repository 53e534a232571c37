"""What a file imports: modules, and the names it gives to what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsp_server.syntax.tree import SyntaxTree

if TYPE_CHECKING:
    from tree_sitter import Node

_STATEMENTS = frozenset({
    "import_statement", "import_from_statement", "future_import_statement", "import_declaration", "use_declaration",
    "preproc_include", "lexical_declaration", "variable_declaration", "export_statement",
})  # fmt: skip
_HOLDERS = frozenset({
    "module", "program", "source_file", "translation_unit", "if_statement", "block", "try_statement", "preproc_ifdef",
    "preproc_if", "preproc_else", "else_clause", "except_clause",
})  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported thing.

    ``module`` is written as in the source, without quotes or brackets: ``..package.part``, ``./part``, ``a/b.h``,
    ``crate::part``. ``name`` is what is taken from it; empty means the whole module and ``*`` everything. ``alias`` is
    what it is called here.
    """

    module: str
    name: str
    alias: str
    line: int


def imports(tree: SyntaxTree) -> list[Import]:
    """All imports outside of functions, in reading order."""
    found: list[Import] = []
    stack = [tree.root]
    while stack:
        node = stack.pop()
        if node.type in _STATEMENTS:
            found += [Import(*parts, node.start_point[0]) for parts in _read(tree, node)]
        elif node.type in _HOLDERS:
            stack += reversed(node.named_children)
    return found


def _read(tree: SyntaxTree, node: Node) -> Iterator[tuple[str, str, str]]:
    match tree.language:
        case "python":
            yield from _python(tree, node)
        case "go":
            yield from _go(tree, node)
        case "rust":
            argument = node.child_by_field_name("argument")
            if argument is not None:
                yield from _rust(tree, argument, "")
        case "java":
            yield from _java(tree, node)
        case "c" | "cpp":
            path = node.child_by_field_name("path")
            if path is not None:
                yield tree.text_of(path).strip('<>"'), "*", ""
        case _:
            yield from _script(tree, node)


def _python(tree: SyntaxTree, node: Node) -> Iterator[tuple[str, str, str]]:
    module_node = node.child_by_field_name("module_name")
    module = tree.text_of(module_node) if module_node is not None else ""
    for item in node.children_by_field_name("name"):
        alias = item.child_by_field_name("alias")
        inner = item.child_by_field_name("name") or item
        name = tree.text_of(inner)
        called = tree.text_of(alias) if alias is not None else name
        yield (module, name, called) if module else (name, "", called)
    if any(child.type == "wildcard_import" for child in node.named_children):
        yield module, "*", ""


def _script(tree: SyntaxTree, node: Node) -> Iterator[tuple[str, str, str]]:
    source = node.child_by_field_name("source")
    if source is None:
        yield from _require(tree, node)
        return
    module = _unquote(tree, source)
    if node.type == "export_statement":
        return
    clause = next((child for child in node.named_children if child.type == "import_clause"), None)
    for part in clause.named_children if clause is not None else ():
        if part.type == "identifier":
            yield module, "default", tree.text_of(part)
        elif part.type == "namespace_import":
            yield module, "", tree.text_of(part.named_children[0])
        elif part.type == "named_imports":
            yield from ((module, *pair) for pair in _pairs(tree, part, "import_specifier"))


def _pairs(tree: SyntaxTree, node: Node, kind: str) -> Iterator[tuple[str, str]]:
    for item in node.named_children:
        name, alias = item.child_by_field_name("name"), item.child_by_field_name("alias")
        if item.type == kind and name is not None:
            yield tree.text_of(name), tree.text_of(alias or name)


def _require(tree: SyntaxTree, node: Node) -> Iterator[tuple[str, str, str]]:
    """``const x = require("y")`` and ``const {a, b: c} = require("y")``."""
    for declarator in node.named_children:
        value, target = declarator.child_by_field_name("value"), declarator.child_by_field_name("name")
        function = value.child_by_field_name("function") if value is not None else None
        arguments = value.child_by_field_name("arguments") if value is not None else None
        if target is None or function is None or arguments is None or tree.text_of(function) != "require":
            continue
        if not arguments.named_children or arguments.named_children[0].type != "string":
            continue
        module = _unquote(tree, arguments.named_children[0])
        if target.type == "identifier":
            yield module, "", tree.text_of(target)
        for part in target.named_children if target.type == "object_pattern" else ():
            key, renamed = part.child_by_field_name("key"), part.child_by_field_name("value")
            if key is not None and renamed is not None:
                yield module, tree.text_of(key), tree.text_of(renamed)
            elif part.type == "shorthand_property_identifier_pattern":
                yield module, tree.text_of(part), tree.text_of(part)


def _go(tree: SyntaxTree, node: Node) -> Iterator[tuple[str, str, str]]:
    for child in node.named_children:
        if child.type == "import_spec_list":
            yield from _go(tree, child)
        elif child.type == "import_spec" and (path := child.child_by_field_name("path")) is not None:
            module, alias = _unquote(tree, path), child.child_by_field_name("name")
            called = tree.text_of(alias) if alias is not None else module.rsplit("/", 1)[-1]
            yield module, "*" if called == "." else "", called


def _rust(tree: SyntaxTree, node: Node, path: str) -> Iterator[tuple[str, str, str]]:
    def text(inner: Node | None) -> str:
        return "".join(tree.text_of(inner).split()) if inner is not None else ""

    def join(tail: str) -> str:
        return f"{path}::{tail}" if path and tail else path or tail

    match node.type:
        case "scoped_use_list":
            inner, below = node.child_by_field_name("list"), join(text(node.child_by_field_name("path")))
            for item in inner.named_children if inner is not None else ():
                yield from _rust(tree, item, below)
        case "use_list":
            for item in node.named_children:
                yield from _rust(tree, item, path)
        case "use_wildcard":
            yield join(text(node.named_children[0] if node.named_children else None)), "*", ""
        case "use_as_clause":
            module, _, name = join(text(node.child_by_field_name("path"))).rpartition("::")
            yield module, name, text(node.child_by_field_name("alias"))
        case "self":
            yield path, "", path.rpartition("::")[2]
        case _:
            module, _, name = join(text(node)).rpartition("::")
            yield module or name, name if module else "", name


def _java(tree: SyntaxTree, node: Node) -> Iterator[tuple[str, str, str]]:
    scoped = next((c for c in node.named_children if c.type in {"scoped_identifier", "identifier"}), None)
    if scoped is None:
        return
    path = tree.text_of(scoped)
    if any(child.type == "asterisk" for child in node.named_children):
        yield path, "*", ""
    else:
        module, _, name = path.rpartition(".")
        yield module, name, name


def _unquote(tree: SyntaxTree, node: Node) -> str:
    return tree.text_of(node)[1:-1]
