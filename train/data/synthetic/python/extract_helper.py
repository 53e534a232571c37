"""Move a part of a long function into a helper function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.naming import is_free
from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import is_test, loaded_names, parameters, stored_names, walk_block, walk_own

MIN_LINES, MAX_LINES, MAX_INPUTS = 3, 14, 4
_LEAVING = (
    ast.Return,
    ast.Yield,
    ast.YieldFrom,
    ast.Await,
    ast.Raise,
    ast.Assert,
    ast.Global,
    ast.Nonlocal,
    ast.NamedExpr,
)

_WORDINGS = (
    "Extract the computation of {output} into a helper function {helper}",
    "Move the code that computes {output} to a new function {helper}",
    "Extract a helper {helper} from {function}",
    "extract function {helper}",
    "{function} is too long. Extract {helper}, which returns {output}.",
    "Split {function}: the part that builds {output} goes into {helper}",
    "Refactor {function} by moving the code for {output} into {helper}",
    "Put the computation of {output} into a function of its own called {helper}",
    "Factor {output} out into {signature}",
    "Create a function {helper} that computes {output} and call it in {function}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Runs of statements of a function's body that give exactly one value to the rest."""
    functions = [
        function
        for function in source.functions
        if isinstance(source.parents[function], ast.Module) and not is_test(function)
    ]
    generator.shuffle(functions)
    for function in functions:
        starts = list(range(len(function.body) - 1))
        generator.shuffle(starts)
        made = next((part for start in starts for part in _runs(source, function, start)), None)
        if made is None:
            continue
        block, inputs, output = made
        helper = next((name for name in _helper_names(output, generator) if is_free(name, source.identifiers)), None)
        span = source.block_lines(block)
        indent = source.indent(block[0])
        if helper is None:
            continue
        call = f"{indent}{output} = {helper}({', '.join(inputs)})\n"
        body = source.text[span.start : span.end]
        definition = f"def {helper}({_signature(source, function, inputs)}):\n{body}{indent}return {output}\n\n\n"
        above = source.lines(function).start
        yield Proposal(
            patches=(Patch(above, above, definition), Patch(span.start, span.end, call)),
            wordings=_WORDINGS,
            slots={
                "function": function.name,
                "helper": helper,
                "output": output,
                "signature": f"{helper}({', '.join(inputs)})",
            },
        )


def _runs(source: PythonSource, function: Function, start: int) -> Iterator[tuple[list[ast.stmt], list[str], str]]:
    """The statements from ``start`` on that can be moved, with what they read and the one name they give."""
    known = {argument.arg for argument in parameters(function)}
    known |= stored_names(node for node in walk_own(function))
    if any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in walk_block(function.body)):
        return
    for end in range(start + 1, len(function.body)):
        block = function.body[start:end]
        lines = (block[-1].end_lineno or 0) - block[0].lineno + 1
        if lines > MAX_LINES or any(
            isinstance(node, (*_LEAVING, ast.Import, ast.ImportFrom)) for node in walk_block(block)
        ):
            return
        if (
            isinstance(block[0], ast.Expr)
            or lines < MIN_LINES
            or not any(isinstance(part, ast.For | ast.If | ast.While | ast.With) for part in block)
        ):
            continue
        stored = stored_names(walk_block(block))
        bound_before = _bound_before(function, start)
        later = loaded_names(walk_block(function.body[end:]))
        outputs = sorted(stored & later)
        inputs = _read_before_written(block, known)
        # A name that the run only sometimes sets has to come in from before.
        if (
            len(outputs) != 1
            or len(outputs[0]) < 3
            or not outputs[0].islower()
            or len(inputs) > MAX_INPUTS
            or not set(inputs) <= bound_before
            or outputs[0] in inputs
        ):
            continue
        if _is_about(block, outputs[0]):
            yield block, inputs, outputs[0]


def _bound_before(function: Function, start: int) -> set[str]:
    return {argument.arg for argument in parameters(function)} | stored_names(walk_block(function.body[:start]))


def _read_before_written(block: list[ast.stmt], known: set[str]) -> list[str]:
    """The function's names that the run needs from before, in order of appearance.

    A name counts as the run's own once a plain statement at the top of the run sets it.
    """
    own: set[str] = set()
    needed: dict[str, None] = {}
    for statement in block:
        inner = {
            node.id
            for part in ast.walk(statement)
            if isinstance(part, ast.comprehension | ast.For)
            for node in ast.walk(part.target)
            if isinstance(node, ast.Name)
        }
        for name in _loads_in_order(statement):
            if name in known and name not in own and name not in inner:
                needed[name] = None
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            own |= stored_names(ast.walk(statement))
    return list(needed)


def _loads_in_order(statement: ast.stmt) -> list[str]:
    """The names that the statement reads, as they appear in the text."""
    loads = [node for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return [node.id for node in sorted(loads, key=lambda node: (node.lineno, node.col_offset))]


def _is_about(block: list[ast.stmt], output: str) -> bool:
    """Whether every statement serves the output: it names it, or sets what a later one reads; it is always set."""
    always = any(
        isinstance(part, ast.Assign | ast.AnnAssign) and output in stored_names(ast.walk(part)) for part in block
    )
    for place, part in enumerate(block):
        names = {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}
        serves = stored_names(ast.walk(part)) & loaded_names(walk_block(block[place + 1 :]))
        if output not in names and not serves:
            return False
    return always and any(isinstance(node, ast.Name) and node.id == output for node in ast.walk(block[-1]))


def _helper_names(output: str, generator: Random) -> list[str]:
    word = output.strip("_").lower()
    verbs = ("build", "collect", "gather") if word.endswith("s") else ("compute", "build", "make", "determine")
    names = [f"{lead}{verb}_{word}" for verb in verbs for lead in ("_", "_", "")]
    generator.shuffle(names)
    return names


def _signature(source: PythonSource, function: Function, inputs: list[str]) -> str:
    """The helper's parameters, with the types they have in the function."""
    types = {
        argument.arg: source.segment(argument.annotation) for argument in parameters(function) if argument.annotation
    }
    all_typed = all(name in types for name in inputs)
    return ", ".join(f"{name}: {types[name]}" if all_typed else name for name in inputs)


REWRITE = Rewrite(name="extract_helper", propose=propose, weight=5.0)
