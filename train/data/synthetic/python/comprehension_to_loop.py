"""Turn a comprehension into a loop."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.scopes import stored_names, walk_own

_WORDINGS = (
    "Use a for loop instead of the comprehension",
    "Replace the {kind_text} comprehension by a loop",
    "Write {name} as an explicit loop",
    "expand the comprehension into a loop",
    "Turn the {kind_text} comprehension in {function} into a for loop",
    "The comprehension for {name} is hard to read, use a plain loop",
    "I need to set a breakpoint inside: make the comprehension a loop",
    "Unroll the comprehension that builds {name} into a for statement",
    "Convert to a normal for loop",
    "Fill {name} in a for loop over {iterated} rather than with a comprehension",
    "No comprehension in {function}, please: a loop is easier to extend",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Comprehensions with one ``for`` that are assigned or returned."""
    statements: list[ast.Assign | ast.Return | ast.AnnAssign] = [
        *source.nodes(ast.Assign), *source.nodes(ast.Return), *source.nodes(ast.AnnAssign)
    ]  # fmt: skip
    generator.shuffle(statements)
    for statement in statements:
        value = statement.value
        function = source.function_of(statement)
        if not isinstance(value, ast.ListComp | ast.SetComp | ast.DictComp) or len(value.generators) != 1:
            continue
        clause = value.generators[0]
        span = source.lines(statement)
        if function is None or clause.is_async or source.has_comment(span) or not source.has_own_lines(statement):
            continue
        variables = stored_names(ast.walk(clause.target))
        bound = [
            node.id for node in walk_own(function) if isinstance(node, ast.Name) and not source.is_inside(node, value)
        ]
        name = _target_name(source, statement, generator)
        if name is None or variables & {*bound, *(a.arg for a in function.args.args)} or name in variables:
            continue
        lines = _loop_lines(source, statement, value, name)
        if any("\n" in line for line in lines):
            continue
        indent = source.indent(statement)
        yield Proposal(
            patches=(Patch(span.start, span.end, "".join(f"{indent}{line}\n" for line in lines)),),
            wordings=_WORDINGS,
            slots={
                "kind_text": {"ListComp": "list", "SetComp": "set", "DictComp": "dict"}[type(value).__name__],
                "name": name,
                "function": function.name,
                "iterated": source.segment(clause.iter),
            },
        )


def _target_name(source: PythonSource, statement: ast.stmt, generator: Random) -> str | None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case ast.Return():
            free = [
                name for name in ("result", "results", "items", "output", "found") if name not in source.identifiers
            ]
            return generator.choice(free) if free else None
        case _:
            return None


def _loop_lines(
    source: PythonSource, statement: ast.stmt, value: ast.ListComp | ast.SetComp | ast.DictComp, name: str
) -> list[str]:
    clause = value.generators[0]
    empty = {"ListComp": "[]", "SetComp": "set()", "DictComp": "{}"}[type(value).__name__]
    hint = f": {source.segment(statement.annotation)}" if isinstance(statement, ast.AnnAssign) else ""
    lines = [f"{name}{hint} = {empty}", f"for {source.segment(clause.target)} in {source.segment(clause.iter)}:"]
    if clause.ifs:
        tests = [source.segment(test) for test in clause.ifs]
        joined = " and ".join(f"({test})" if len(tests) > 1 and " or " in test else test for test in tests)
        lines.append(f"    if {joined}:")
    inner = "    " * (2 if clause.ifs else 1)
    if isinstance(value, ast.DictComp):
        lines.append(f"{inner}{name}[{source.segment(value.key)}] = {source.segment(value.value)}")
    else:
        method = "append" if isinstance(value, ast.ListComp) else "add"
        lines.append(f"{inner}{name}.{method}({source.segment(value.elt)})")
    if isinstance(statement, ast.Return):
        lines.append(f"return {name}")
    return lines


REWRITE = Rewrite(name="comprehension_to_loop", propose=propose, weight=3.0)
