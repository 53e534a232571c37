"""Use ``with`` for what has to be closed, as the author does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Use a context manager for {name}",
    "Use a with statement in {function}",
    "Open the file with a with statement",
    "use with",
    "{name} is not closed if an exception is raised; use with",
    "Replace the explicit close by a with block",
    "Make sure that {name} is always closed",
    "Use {opened} as a context manager",
    "Wrap the use of {name} in a with statement instead of calling {name}.close()",
    "{function} leaks {name} on errors. Fix it with a context manager.",
    "Convert open/close in {function} to with ... as {name}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """``with ...open(...) as name`` blocks that do not leave early."""
    nodes = source.nodes(ast.With)
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        if len(node.items) != 1 or function is None or not source.has_own_lines(node.body[0]):
            continue
        item = node.items[0]
        opened, name = item.context_expr, item.optional_vars
        if not isinstance(name, ast.Name) or not isinstance(opened, ast.Call) or not _is_closable(opened):
            continue
        leaves = any(isinstance(child, ast.Return | ast.Yield | ast.Break | ast.Continue) for child in ast.walk(node))
        is_last_return = (
            isinstance(node.body[-1], ast.Return) and len([c for c in ast.walk(node) if isinstance(c, ast.Return)]) == 1
        )
        if leaves and not is_last_return:
            continue
        indent = source.indent(node)
        moved = source.reindent(source.block_lines(node.body), len(indent) - len(source.indent(node.body[0])))
        if moved is None or source.has_comment(source.line_of(source.start(node))):
            continue
        head = f"{indent}{name.id} = {source.segment(opened)}\n"
        close = f"{indent}{name.id}.close()\n"
        body = _with_close(source, node, moved, indent, close) if is_last_return else moved + close
        if body is None:
            continue
        yield Proposal(
            patches=(Patch(source.lines(node).start, source.lines(node).end, head + body),),
            wordings=_WORDINGS,
            slots={"name": name.id, "function": function.name, "opened": source.segment(opened.func)},
            is_restored=True,
        )


def _is_closable(opened: ast.Call) -> bool:
    called = ast.unparse(opened.func)
    return called.split(".")[-1] in (
        "open",
        "fdopen",
        "ZipFile",
        "TarFile",
        "connect",
        "urlopen",
        "socket",
        "NamedTemporaryFile",
    )


def _with_close(source: PythonSource, node: ast.With, moved: str, indent: str, close: str) -> str | None:
    """The moved body with the close before its last line, a return of something that was kept in a variable."""
    last = node.body[-1]
    if not isinstance(last, ast.Return) or last.value is None or last.lineno != last.end_lineno:
        return None
    lines = moved.rstrip("\n").split("\n")
    if isinstance(last.value, ast.Name):
        return "\n".join(lines[:-1]) + "\n" + close + lines[-1] + "\n" if len(lines) > 1 else None
    kept = next((word for word in ("result", "data", "content") if word not in source.identifiers), None)
    if kept is None:
        return None
    head = "\n".join(lines[:-1]) + "\n" if len(lines) > 1 else ""
    return f"{head}{indent}{kept} = {source.segment(last.value)}\n{close}{indent}return {kept}\n"


REWRITE = Rewrite(name="with_statement", propose=propose, weight=5.0)
