"""Which names a function binds, and where a local name occurs."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from train.data.synthetic.patches import Span
from train.data.synthetic.python_source import Function, PythonSource

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_REFLECTION = frozenset({"locals", "vars", "eval", "exec", "globals", "dir"})


def parameters(function: Function | ast.Lambda) -> list[ast.arg]:
    """All parameters in the order of their appearance, ``*args`` and ``**kwargs`` included."""
    found = [*function.args.posonlyargs, *function.args.args]
    found += [function.args.vararg] if function.args.vararg else []
    found += function.args.kwonlyargs
    return found + ([function.args.kwarg] if function.args.kwarg else [])


def walk_own(function: Function) -> Iterator[ast.AST]:
    """The nodes of the body that run when the function runs: nested functions, classes and lambdas left out."""
    pending: list[ast.AST] = list(reversed(function.body))
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            pending.extend(reversed(list(ast.iter_child_nodes(node))))


def walk_block(block: list[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes of consecutive statements."""
    for statement in block:
        yield from ast.walk(statement)


def stored_names(nodes: Iterator[ast.AST]) -> set[str]:
    """The names that are assigned or deleted among the nodes."""
    return {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}


def loaded_names(nodes: Iterator[ast.AST]) -> set[str]:
    """The names that are read among the nodes."""
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def local_variables(function: Function) -> list[str]:
    """Names that plain assignments, loops and ``with`` bind in the function, in order of appearance."""
    known = {argument.arg for argument in parameters(function)}
    found: dict[str, None] = {}
    for node in walk_own(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in known:
            found[node.id] = None
    return list(found)


def find_local_uses(source: PythonSource, function: Function, name: str) -> list[Span] | None:
    """Every place where the local variable or parameter is named.

    Returns:
        None where a rename would not be safe: another scope binds the name too, or the function looks at its own
        variables by name.
    """
    spans: list[Span] = []
    is_parameter = False
    for argument in parameters(function):
        if argument.arg == name:
            is_parameter = True
            spans.append(Span(source.start(argument), source.start(argument) + len(name)))
    for node in walk_block(function.body):
        if _rebinds(node, name):
            return None
        if isinstance(node, ast.Name) and node.id in _REFLECTION:
            return None
        if isinstance(node, ast.Name) and node.id == name:
            spans.append(Span(source.start(node), source.end(node)))
    if any(source.text[span.start : span.end] != name for span in spans):
        return None  # Python 3.11 misplaces some names inside f-strings
    return spans if is_parameter or len(spans) > 1 else None


def _rebinds(node: ast.AST, name: str) -> bool:
    """Whether the node gives the name another meaning than that of the function's variable."""
    match node:
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return name in names
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return any((alias.asname or alias.name.split(".")[0]) == name for alias in aliases)
        case (
            ast.ExceptHandler(name=bound)
            | ast.MatchAs(name=bound)
            | ast.MatchStar(name=bound)
            | ast.MatchMapping(rest=bound)
        ):
            return bound == name
        case ast.FunctionDef(name=bound) | ast.AsyncFunctionDef(name=bound) | ast.ClassDef(name=bound) if bound == name:
            return True
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        inner = node.body if isinstance(node.body, list) else [node.body]
        stores = stored_names(child for part in inner for child in ast.walk(part))
        return name in stores or any(argument.arg == name for argument in parameters(node))
    if isinstance(node, ast.ClassDef):
        return name in stored_names(ast.walk(node))
    if isinstance(node, _COMPREHENSIONS):
        return any(name in stored_names(ast.walk(part.target)) for part in node.generators)
    return False


def has_effects(node: ast.expr) -> bool:
    """Whether evaluating the expression at another time or twice could matter."""
    kinds = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
    return any(isinstance(child, kinds) for child in ast.walk(node))


def docstring_of(node: Function | ast.ClassDef | ast.Module) -> ast.Expr | None:
    """The statement that is the docstring."""
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first
    return None


def body_without_docstring(node: Function) -> list[ast.stmt]:
    """The statements after the docstring; may be empty."""
    return node.body[1:] if docstring_of(node) else node.body


def is_test(function: Function) -> bool:
    """Whether the function is a part of a test: nothing else says what its numbers and conditions should be."""
    return function.name.lower().startswith(("test", "setup", "teardown", "set_up", "tear_down"))
