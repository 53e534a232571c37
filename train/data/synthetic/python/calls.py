"""The calls of a function inside its file, where they can be known for sure."""

from __future__ import annotations

import ast

from train.data.synthetic.python_source import Function, PythonSource

# Keywords whose value belongs to the call itself: nobody makes them a parameter or a constant.
CALLEES_OWN = frozenset({
    "action", "check", "dest", "help", "maxsplit", "metavar", "name", "nargs", "match", "reason", "stacklevel", "flags",
    "text", "type", "shell", "msg", "title", "label", "key", "id", "default", "indent", "axis", "dim",
})  # fmt: skip


def calls_of(source: PythonSource, function: Function) -> list[ast.Call] | None:
    """All calls, by name for functions of the module and by ``self.name`` for methods.

    Returns:
        None where the name is also used in another way (passed on, called on another object), or belongs to two.
    """
    if sum(other.name == function.name for other in source.functions) > 1:
        return None
    is_method = source.class_of(function) is not None
    if is_method and function.decorator_list:
        return None
    calls: list[ast.Call] = []
    uses: list[ast.expr] = [node for node in source.nodes(ast.Name) if node.id == function.name]
    uses += [node for node in source.nodes(ast.Attribute) if node.attr == function.name]
    for use in uses:
        parent = source.parents[use]
        fits = (
            isinstance(use, ast.Attribute) and isinstance(use.value, ast.Name) and use.value.id == "self"
            if is_method
            else isinstance(use, ast.Name)
        )
        if not fits or not isinstance(parent, ast.Call) or parent.func is not use:
            return None
        calls.append(parent)
    return calls
