"""Where a new import goes."""

from __future__ import annotations

import ast

from train.data.synthetic.patches import Patch
from train.data.synthetic.python_source import PythonSource


def import_patch(source: PythonSource, module: str, name: str = "") -> Patch | None:
    """The patch that adds ``import module`` or ``from module import name``; None where it is there already.

    It goes to its place in the alphabet among the first run of imports of its form, else to the top of them.
    """
    line = f"from {module} import {name}\n" if name else f"import {module}\n"
    imports = [node for node in source.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    if any(_imports(node, module, name) for node in imports):
        return None
    regular = [node for node in imports if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
    if not regular:
        return _at_top(source, imports, line)
    run = _first_run(source, regular)
    for node in run:
        if _sort_key(node) > (bool(name), module):
            start = source.lines(node).start
            return Patch(start, start, line)
    end = source.lines(run[-1]).end
    return Patch(end, end, line)


def _imports(node: ast.Import | ast.ImportFrom, module: str, name: str) -> bool:
    if isinstance(node, ast.Import):
        return not name and any(alias.name == module and alias.asname is None for alias in node.names)
    return bool(name) and node.module == module and any(alias.name == name for alias in node.names)


def _sort_key(node: ast.Import | ast.ImportFrom) -> tuple[bool, str]:
    if isinstance(node, ast.Import):
        return False, node.names[0].name
    return True, "." * node.level + (node.module or "")


def _first_run(source: PythonSource, imports: list[ast.Import | ast.ImportFrom]) -> list[ast.Import | ast.ImportFrom]:
    """The first imports up to a blank line."""
    run = imports[:1]
    for node in imports[1:]:
        if source.text[source.lines(run[-1]).end : source.lines(node).start]:
            break
        run.append(node)
    return run


def _at_top(source: PythonSource, futures: list[ast.Import | ast.ImportFrom], line: str) -> Patch:
    """A first import: below the ``__future__`` line or the module's docstring, or at the very top."""
    first = source.tree.body[0]
    if futures:
        end = source.lines(futures[-1]).end
        return Patch(end, end, f"\n{line}")
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        end = source.lines(first).end
        return Patch(end, end, f"\n{line}")
    start = source.lines(first).start
    return Patch(
        start,
        start,
        f"{line}\n\n" if isinstance(first, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) else f"{line}\n",
    )
