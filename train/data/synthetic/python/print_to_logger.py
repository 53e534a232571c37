"""Replace ``print`` by the module's logger."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.add_import import import_patch
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Use logging instead of print",
    "Replace print with {call}",
    "Replace the print calls in {function} by logging",
    "log instead of printing",
    "Log with {logger} at level {level_text} instead of printing",
    "{function} should log, not print",
    "Do not print in {function}; use the logger",
    "Convert prints to {logger} calls ({level_text})",
    "Change print() to {call}() in {function}",
    "print statements do not belong in a library, use the logging module",
    "Use the {logger} of this module in {function} rather than print",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """All simple prints of a random function, as one level."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        calls = [
            node for node in source.nodes(ast.Expr) if source.function_of(node) is function and _is_simple_print(node)
        ]
        if not calls:
            continue
        logger, additions = _logger_of(source)
        level = generator.choices(("info", "debug", "warning", "error"), (5, 3, 1, 1))[0]
        patches = [*additions]
        for node in calls:
            assert isinstance(node.value, ast.Call)
            patches.append(Patch(source.start(node.value.func), source.end(node.value.func), f"{logger}.{level}"))
            patches += [
                Patch(source.end(node.value.args[-1]), source.end(keyword), "") for keyword in node.value.keywords
            ]
        yield Proposal(
            patches=tuple(patches),
            wordings=_WORDINGS,
            slots={"logger": logger, "call": f"{logger}.{level}", "level_text": level, "function": function.name},
        )


def _is_simple_print(node: ast.Expr) -> bool:
    """``print`` of one text, to the standard output or error."""
    match node.value:
        case ast.Call(func=ast.Name(id="print"), args=[ast.Constant(value=str()) | ast.JoinedStr()], keywords=keywords):
            return len(keywords) < 2 and all(
                keyword.arg == "file" and ast.unparse(keyword.value) == "sys.stderr" for keyword in keywords
            )
        case _:
            return False


def _logger_of(source: PythonSource) -> tuple[str, list[Patch]]:
    """The module's logger, and the patches that make one where there is none."""
    for node in source.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=called)):
                if ast.unparse(called) in ("logging.getLogger", "getLogger"):
                    return name, []
    addition = import_patch(source, "logging")
    maker = "logger = logging.getLogger(__name__)\n"
    imports = [node for node in source.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    end = source.lines(imports[-1]).end if imports else None
    if addition is None:
        assert end is not None
        return "logger", [Patch(end, end, f"\n{maker}")]
    if end is None or addition.start == end:
        line = addition.text.rstrip("\n")
        below = addition.text[len(line) + 1 :]
        return "logger", [Patch(addition.start, addition.end, f"{line}\n\n{maker}{below}")]
    return "logger", [addition, Patch(end, end, f"\n{maker}")]


REWRITE = Rewrite(name="print_to_logger", propose=propose, weight=6.0)
