"""Handle the exceptions that the author handles: the ``try`` around the code is taken away."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Handle {error} in {function}: {action_text}",
    "Catch {error} and {action_text}",
    "If {code} raises {error}, {action_text}",
    "{function} should not fail with {error}: {action_text} instead",
    "Wrap {code} in a try block; on {error} {action_text}",
    "catch {error} here and {action_text}",
    "Add error handling to {function}. When {error} is raised, {action_text}.",
    "Add a try/except for {error} around {code} ({action_text} in the handler)",
    "{code} can raise {error}. In that case {action_text}",
    "What happens if {code} raises {error}? It should {action_text}.",
    "Make {function} robust against {error}: {action_text}",
)
MAX_ACTION_CHARACTERS = 80
_SHORT_ACTIONS: dict[type[ast.stmt], str] = {
    ast.Pass: "ignore it",
    ast.Continue: "skip to the next one",
    ast.Break: "stop the loop",
}
_EXPECTED = frozenset({"ignore it", "return None", "return"})
_LAZY = (
    "Handle {error}",
    "add error handling for {error}",
    "{function} crashes with {error}, handle it",
    "Catch {error}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """``try`` statements with one handler that does one thing."""
    nodes = source.nodes(ast.Try)
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        if len(node.handlers) != 1 or node.orelse or node.finalbody or function is None:
            continue
        handler = node.handlers[0]
        if handler.type is None or len(handler.body) != 1 or not source.has_own_lines(node.body[0]):
            continue
        action = describe_action(source, handler.body[0])
        body = source.block_lines(node.body)
        moved = source.reindent(body, len(source.indent(node)) - len(source.indent(node.body[0])))
        if action is None or moved is None or len(node.body) > 4:
            continue
        code = " ".join(source.segment(node.body[-1] if len(node.body) == 1 else node.body[0]).split())
        error = " ".join(source.segment(handler.type).split())
        short = len(code) <= 50 and not isinstance(node.body[0], ast.With | ast.For | ast.If)
        wordings = _WORDINGS if short else tuple(wording for wording in _WORDINGS if "{code}" not in wording)
        yield Proposal(
            patches=(Patch(source.lines(node).start, source.lines(node).end, moved),),
            wordings=wordings + (_LAZY if action in _EXPECTED and error != "Exception" else ()),
            slots={"error": _join(error), "function": function.name, "code": code, "action_text": action},
            is_restored=True,
        )


def _join(error: str) -> str:
    """The exceptions of a tuple, as one piece of code: ``KeyError or ValueError``."""
    return " or ".join(part.strip() for part in error.strip("()").split(",") if part.strip())


def describe_action(source: PythonSource, statement: ast.stmt) -> str | None:
    """What a handler's only statement does, as a verb phrase; None where that takes too many words."""
    code = " ".join(source.segment(statement).split())
    if len(code) > MAX_ACTION_CHARACTERS:
        return None
    if type(statement) in _SHORT_ACTIONS:
        return _SHORT_ACTIONS[type(statement)]
    match statement:
        case ast.Return(value=value):
            return "return" if value is None else f"return {ast.unparse(value)}"
        case ast.Raise(exc=ast.Call(func=raised)) | ast.Raise(exc=ast.Name() as raised):
            return f"raise {ast.unparse(raised)}"
        case ast.Assign(targets=[target], value=value):
            return f"set {ast.unparse(target)} to {ast.unparse(value)}"
        case ast.Expr(
            value=ast.Call(func=ast.Attribute(attr="debug" | "info" | "warning" | "error" | "exception" as level))
        ):
            return f"log it ({level})"
        case ast.Expr(value=ast.Call(func=called)):
            return "print it" if ast.unparse(called) == "print" else f"call {code}"
        case _:
            return None


REWRITE = Rewrite(name="handle_error", propose=propose, weight=3.0)
