"""A small program cut from a large file: some of its definitions, what they refer to, and the imports they use.

People also ask for changes to a whole short program, and few real files are short.
"""

from __future__ import annotations

import ast
from random import Random

from train.data.synthetic.python_source import PythonSource, parse_python

MIN_CHARACTERS = 250
MAX_DEPENDENCY_CHARACTERS = 500


def cut_excerpt(source: PythonSource, generator: Random, max_characters: int) -> PythonSource | None:
    """A random excerpt of at most so many characters, as a file of its own; None where nothing fits."""
    statements = [node for node in source.tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    definitions: list[ast.stmt] = [
        node for node in statements if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    if not definitions:
        return None
    target = generator.randint(MIN_CHARACTERS * 2, max_characters)
    start = generator.choice(definitions)
    if len(source.lines(start)) > target:
        text = _cut_class(source, start, generator, target) if isinstance(start, ast.ClassDef) else None
        chosen = [start]
        body = [] if text is None else [text]
    else:
        chosen = _extend(source, statements, start, target)
        body = [source.text[source.lines(node).start : source.lines(node).end] for node in chosen]
    if not body:
        return None
    return _assemble(source, statements, chosen, body, max_characters)


def _extend(source: PythonSource, statements: list[ast.stmt], start: ast.stmt, target: int) -> list[ast.stmt]:
    """The definition and those after it, as long as they fit."""
    index = statements.index(start)
    chosen = [start]
    size = len(source.lines(start))
    for node in statements[index + 1 :]:
        size += len(source.lines(node)) + 2
        if size > target:
            break
        chosen.append(node)
    return chosen


def _cut_class(source: PythonSource, node: ast.ClassDef, generator: Random, target: int) -> str | None:
    """The class with ``__init__`` and a run of its methods, in their order."""
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
    others = [part for part in node.body if part not in methods]
    if not methods:
        return None
    head_end = source.lines(node.body[0]).start
    head = source.text[source.lines(node).start : head_end]
    kept: list[ast.stmt] = [*others, *[method for method in methods if method.name == "__init__"]]
    size = len(head) + sum(len(source.lines(part)) for part in kept)
    first = generator.randrange(len(methods))
    for method in methods[first:]:
        if method in kept:
            continue
        size += len(source.lines(method)) + 1
        if size > target:
            break
        kept.append(method)
    if size > 2 * target or not any(part in methods for part in kept):
        return None
    ordered = sorted(kept, key=lambda part: part.lineno)
    pieces: list[str] = []
    for index, part in enumerate(ordered):
        gap = "\n" if index and (part in methods or ordered[index - 1] in methods) else ""
        span = source.lines(part)
        pieces.append(gap + source.text[span.start : span.end])
    return head + "".join(pieces)


def _assemble(
    source: PythonSource, statements: list[ast.stmt], chosen: list[ast.stmt], body: list[str], max_characters: int
) -> PythonSource | None:
    """The excerpt with the imports and the small definitions that it refers to."""
    text = "\n\n".join(piece.rstrip("\n") + "\n" for piece in body)
    used = _names_of(text)
    if used is None:
        return None
    helpers: list[str] = []
    for node in statements:
        bound = _bound_names(node)
        span = source.lines(node)
        if node not in chosen and bound & used and len(span) <= MAX_DEPENDENCY_CHARACTERS:
            piece = source.text[span.start : span.end]
            helpers.append(piece)
            used |= _names_of(piece) or set()
    imports = [line for node in source.tree.body if (line := _needed_import(node, used))]
    parts = ["\n".join(imports), _join_definitions(helpers), text]
    whole = "\n\n".join(part.rstrip("\n") + "\n" for part in parts if part)
    if not MIN_CHARACTERS <= len(whole) <= max_characters:
        return None
    tree = parse_python(whole)
    return None if tree is None else PythonSource(whole, tree)


def _join_definitions(pieces: list[str]) -> str:
    joined = ""
    for piece in pieces:
        is_large = piece.lstrip().startswith(("def ", "class ", "@", "async ")) or joined.endswith(" \n")
        joined += ("\n\n" if joined and is_large else "") + piece
    return joined


def _names_of(text: str) -> set[str] | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _bound_names(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case _:
            return set()


def _needed_import(node: ast.stmt, used: set[str]) -> str:
    """The import statement, with only the names that are used; empty where none is."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return ""
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return ast.unparse(node)
    kept = [alias for alias in node.names if (alias.asname or alias.name.split(".")[0]) in used]
    if not kept:
        return ""
    if isinstance(node, ast.Import):
        return ast.unparse(ast.Import(names=kept))
    return ast.unparse(ast.ImportFrom(module=node.module, names=kept, level=node.level))
