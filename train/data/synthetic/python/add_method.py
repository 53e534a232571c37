"""Write the function or method that the author wrote: it is gone, or its body is, in the code the user starts with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.instructions import first_sentence, is_verb, lower_first
from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import body_without_docstring, docstring_of, is_test

MIN_LINES, MAX_LINES = 3, 25

_ADD_WORDINGS = (
    "Add a method {name} to {owner}: {summary_text}",
    "Add {signature} to {owner}: {summary_text}",
    "Extend {owner} with {signature}. {summary_text}.",
    "{owner} should have a method {name} ({summary_text})",
    "Write a new method {signature} in the class {owner}. {summary_text}. Include a docstring.",
    "I need {owner} to have a method called {name}. {summary_text}.",
    "Add the missing method {qualified}. Its docstring: {summary_text}.",
    "add {signature}",
)
_ADD_TASK_WORDINGS = (
    "Add a method {signature} to {owner}. It should {task_text}.",
    "{owner} needs a method {name} that does the following: {task_text}",
    "Give {owner} a method {signature}: {task_text}",
    "Add {name} to {owner} ({task_text})",
    "Implement {qualified}: {task_text}",
    "add {name}: {task_text}",
)
_IMPLEMENT_WORDINGS = (
    "Implement {name}",
    "Implement {name} as its docstring says",
    "implement",
    "Write the body of {name}",
    "Fill in {name}",
    "{name} is not implemented yet; do it",
    "Complete the function {name}",
    "Replace the placeholder in {name} by an implementation",
    "Finish {name}",
    "Can you write {name}?",
)
_IMPLEMENT_TASK_WORDINGS = (
    "Complete the function {name}: {task_text}",
    "Implement {name} so that it does what is documented: {task_text}",
    "{name} should {task_text}, implement that",
)


def propose_method(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Methods with a docstring, of classes with other methods; nothing else in the class may use them."""
    functions = [function for function in source.functions if source.class_of(function) is not None]
    generator.shuffle(functions)
    for function in functions:
        owner = source.class_of(function)
        described = _describe(source, function)
        if (
            owner is None
            or function.name == "__init__"
            or described is None
            or function.decorator_list
            or len(owner.body) < 3
        ):
            continue
        used = any(node.attr == function.name for node in source.nodes(ast.Attribute))
        if any(node.id == function.name for node in source.nodes(ast.Name)):
            continue
        if used and generator.random() < 0.7:
            continue
        span = source.lines(function)
        end = span.end
        while source.text[end : end + 1] == "\n" and owner.body[-1] is not function:
            end += 1
        start = span.start
        if owner.body[-1] is function:
            start = len(source.text[:start].rstrip()) + 1
        yield Proposal(
            patches=(Patch(start, end, ""),),
            wordings=_ADD_WORDINGS + (_ADD_TASK_WORDINGS if described["task_text"] else ()),
            slots={**described, "owner": owner.name, "qualified": f"{owner.name}.{function.name}"},
            is_restored=True,
        )


def propose_body(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Bodies of functions with a docstring."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        described = _describe(source, function)
        body = body_without_docstring(function)
        if described is None or not body or not source.has_own_lines(body[0]):
            continue
        span = source.block_lines(body)
        placeholder = generator.choices(("pass", "raise NotImplementedError", "...", "return None"), (4, 4, 2, 1))[0]
        yield Proposal(
            patches=(Patch(span.start, span.end, f"{source.indent(body[0])}{placeholder}\n"),),
            wordings=_IMPLEMENT_WORDINGS + (_IMPLEMENT_TASK_WORDINGS if described["task_text"] else ()),
            slots=described,
            is_restored=True,
        )


def _describe(source: PythonSource, function: Function) -> dict[str, str] | None:
    """Name, signature and what the docstring says; None where it is missing or the function is tiny or long."""
    docstring = docstring_of(function)
    body = body_without_docstring(function)
    text = ast.get_docstring(function) or ""
    summary = first_sentence(text)
    if is_test(function) or docstring is None or not body or not 20 <= len(summary) <= 200 or not text.isascii():
        return None
    num_lines = (function.end_lineno or 0) - body[0].lineno + 1
    if not MIN_LINES <= num_lines <= MAX_LINES or isinstance(body[-1], ast.Raise | ast.Pass):
        return None
    signature = f"{function.name}({ast.unparse(function.args)})"
    if len(signature) > 90:
        signature = f"{function.name}()"
    return {"name": function.name, "signature": signature, "summary_text": summary, "task_text": _as_task(summary)}


def _as_task(summary: str) -> str:
    """A docstring's first sentence in the imperative: ``Returns the name`` becomes ``return the name``.

    Empty where the sentence does not begin with a verb.
    """
    word, _, rest = summary.partition(" ")
    lowered = lower_first(word)
    if lowered.endswith("ies"):
        lowered = lowered[:-3] + "y"
    elif lowered.endswith(("sses", "ches", "shes", "xes")):
        lowered = lowered[:-2]
    elif lowered.endswith("s") and not lowered.endswith("ss") and word.istitle():
        lowered = lowered[:-1]
    return f"{lowered} {rest}".strip() if is_verb(lowered) else ""


REWRITES = (
    Rewrite(name="add_method", propose=propose_method, weight=3.0),
    Rewrite(name="implement_function", propose=propose_body, weight=1.2),
)
