"""Handle the exception that a well-known call can raise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import is_test, walk_own

_RAISED = {
    "open": "OSError",
    "json.loads": "json.JSONDecodeError",
    "json.load": "json.JSONDecodeError",
    "int": "ValueError",
    "float": "ValueError",
    "os.remove": "FileNotFoundError",
    "os.unlink": "FileNotFoundError",
    "os.listdir": "FileNotFoundError",
    "subprocess.check_output": "subprocess.CalledProcessError",
    "subprocess.check_call": "subprocess.CalledProcessError",
    "importlib.import_module": "ImportError",
    "__import__": "ImportError",
    "socket.create_connection": "OSError",
    "os.stat": "OSError",
    "shutil.copyfile": "OSError",
    "shutil.rmtree": "OSError",
    "os.makedirs": "OSError",
    "os.rename": "OSError",
    "requests.get": "requests.RequestException",
    "urlopen": "URLError",
    "datetime.strptime": "ValueError",
    "ast.literal_eval": "ValueError",
    "ast.parse": "SyntaxError",
}
_MESSAGES = {
    "open": "cannot open the file",
    "int": "not a number",
    "float": "not a number",
    "json.loads": "not valid JSON",
    "json.load": "not valid JSON",
}

_WORDINGS = (
    "Handle {error} in {function}: {action_text}",
    "{call} can raise {error}; {action_text} then",
    "Wrap the call of {call} in try/except and {action_text} on {error}",
    "Catch {error} and {action_text}",
    "handle {error} in {function} ({action_text})",
    "What if {call} fails? Then {function} should {action_text}.",
    "{function} should {action_text} if {call} raises {error}",
    "Make {function} handle a failing {call}: {action_text}",
    "Put {call} into a try block. On {error}, {action_text}.",
    "Add a try/except around {call} ({error}: {action_text})",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Assignments and plain calls of well-known functions that stand outside of any ``try``."""
    calls = [node for node in source.nodes(ast.Call) if ast.unparse(node.func) in _RAISED] if _mentions(source) else []
    generator.shuffle(calls)
    for call in calls:
        statement = next((outer for outer in source.ancestors(call) if isinstance(outer, ast.stmt)), None)
        function = source.function_of(call)
        guarded = any(isinstance(outer, ast.Try) for outer in source.ancestors(call))
        fits = getattr(statement, "value", None) is call and statement is not None and source.has_own_lines(statement)
        if (
            function is None
            or is_test(function)
            or statement is None
            or guarded
            or not fits
            or not isinstance(statement, ast.Assign | ast.Expr | ast.Return)
        ):
            continue
        if any(isinstance(argument, ast.Constant) for argument in call.args[:1]) and ast.unparse(call.func) in (
            "int",
            "float",
        ):
            continue
        moved = source.reindent(source.lines(statement), 4)
        if moved is None:
            continue
        name = ast.unparse(call.func)
        handler, action = _handler(function, name, generator)
        indent = source.indent(statement)
        text = f"{indent}try:\n{moved}{indent}except {_RAISED[name]}{handler[0]}:\n{indent}    {handler[1]}\n"
        span = source.lines(statement)
        yield Proposal(
            patches=(Patch(span.start, span.end, text),),
            wordings=_WORDINGS,
            slots={"function": function.name, "call": name, "error": _RAISED[name], "action_text": action},
        )


def _mentions(source: PythonSource) -> bool:
    return any(name.split(".")[-1] in source.identifiers for name in _RAISED)


def _handler(function: Function, call: str, generator: Random) -> tuple[tuple[str, str], str]:
    """What follows ``except <type>`` and the handler's line, and the same in words."""
    message = _MESSAGES.get(call, f"{call} failed")
    returns_nothing = not any(isinstance(node, ast.Return) and node.value is not None for node in walk_own(function))
    choices = [
        (
            (" as error", f'raise ValueError(f"{message}: {{error}}") from error'),
            f'raise a ValueError that says "{message}" and the cause',
        ),
        ((" as error", f'raise RuntimeError("{message}") from error'), f'raise RuntimeError("{message}") from it'),
        (("", "return" if returns_nothing else "return None"), "return" if returns_nothing else "return None"),
    ]
    if function.returns is not None and "None" not in ast.unparse(function.returns):
        choices.pop()  # returning None would break the promise of the signature
    return generator.choice(choices)


REWRITE = Rewrite(name="wrap_in_try", propose=propose, weight=3.0)
