"""Idioms of JavaScript and TypeScript, as the author wrote them: equality, const, templates, await, types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.tree_source import TreeSource

_SCRIPTS = frozenset({"javascript", "javascriptreact", "typescript", "typescriptreact"})
_TYPED = frozenset({"typescript", "typescriptreact"})

_EQUALITY_WORDINGS = (
    "Use strict equality",
    "Use === instead of ==",
    "eqeqeq",
    "Replace == by === in {function}",
    "Compare without type coercion",
    "The comparison in {function} should be strict",
    "Fix the loose comparison",
    "Use {right} instead of {wrong}",
    "Avoid == in {function}, it coerces types",
)
_CONST_WORDINGS = (
    "Use const for {name}",
    "{name} is never reassigned, make it const",
    "prefer-const",
    "Replace {keyword} by const",
    "Declare {name} with const",
    "Make {name} a constant binding",
    "Use const instead of {keyword} where nothing is reassigned",
    "{name} should be const",
    "Fix the prefer-const warning for {name}",
)
_TEMPLATE_WORDINGS = (
    "Use a template literal",
    "Use a template string instead of concatenation",
    "prefer-template",
    "Replace the string concatenation in {function}",
    "Build the string with a template literal",
    "Convert the concatenation to a template string",
    "Use backticks and ${{}} here",
    "Rewrite the concatenated string as a template literal",
    "Can this be a template string?",
)
_AWAIT_WORDINGS = (
    "Await {call}",
    "{call} is not awaited",
    "There is an await missing in {function}",
    "Fix the floating promise in {function}",
    "Add the missing await",
    "{call} returns a promise, wait for it",
    "no-floating-promises",
    "{function} uses the promise instead of its value",
    "Wait for {call} in {function}",
)
_TYPE_WORDINGS = (
    "Add types to {function}",
    "Add type annotations to {function}",
    "Type the parameters of {function}",
    "Annotate the signature of {function}",
    "{function} has implicit any parameters, add types",
    "add types",
    "Write the parameter and return types of {function}",
    "Make {function} fully typed",
    "Add TypeScript types to the signature of {function}",
    "noImplicitAny fails for {function}, fix it",
)


def propose_equality(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """``==`` where the author compares strictly."""
    for function in _shuffled(source, generator):
        for node in source.walk(function):
            sign = node.child_by_field_name("operator") if node.type == "binary_expression" else None
            if sign is not None and source.segment(sign) in ("===", "!=="):
                right = source.segment(sign)
                yield Proposal(
                    patches=(source.replace(sign, right[:2]),),
                    wordings=_EQUALITY_WORDINGS,
                    slots={"function": source.name_of(function), "right": right, "wrong": right[:2]},
                    is_restored=True,
                )
                break


def propose_const(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """``let`` or ``var`` where the author has ``const``."""
    for function in _shuffled(source, generator):
        for node in source.walk(function):
            is_const = node.type == "lexical_declaration" and source.segment(node).startswith("const ")
            names = [child.child_by_field_name("name") for child in node.named_children] if is_const else []
            if len(names) != 1 or names[0] is None or names[0].type != "identifier":
                continue
            keyword = generator.choice(("let", "var"))
            start = source.span(node).start
            yield Proposal(
                patches=(Patch(start, start + len("const"), keyword),),
                wordings=_CONST_WORDINGS,
                slots={"name": source.segment(names[0]), "keyword": keyword},
                is_restored=True,
            )
            break


def propose_template(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """Concatenation where the author has a template string."""
    for function in _shuffled(source, generator):
        for node in source.walk(function):
            parent = node.parent
            if (
                node.type != "template_string"
                or parent is None
                or parent.type in ("call_expression", "member_expression", "template_substitution")
            ):
                continue
            pieces = _concatenate(source.segment(node)[1:-1])
            if pieces is not None:
                yield Proposal(
                    patches=(source.replace(node, pieces),),
                    wordings=_TEMPLATE_WORDINGS,
                    slots={"function": source.name_of(function)},
                    is_restored=True,
                )
                break


def _concatenate(inner: str) -> str | None:
    """The template's parts joined by ``+``; None where a part is no plain name or text."""
    if "\n" in inner or "'" in inner or "\\" in inner:
        return None
    parts = re.split(r"\$\{([\w.]+(?:\([\w., ]*\))?)\}", inner)
    if len(parts) < 3 or any("${" in part for part in parts[::2]):
        return None
    texts = [f"'{part}'" if place % 2 == 0 else part for place, part in enumerate(parts) if part]
    return " + ".join(texts) if texts[0].startswith("'") else None


def propose_await(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """A promise that nobody waits for."""
    for function in _shuffled(source, generator):
        for node in source.walk(function):
            if (
                node.type != "await_expression"
                or not node.named_children
                or node.named_children[0].type != "call_expression"
            ):
                continue
            call = node.named_children[0]
            called = call.child_by_field_name("function")
            if called is not None and len(source.segment(called)) < 50 and "\n" not in source.segment(called):
                yield Proposal(
                    patches=(source.replace(node, source.segment(call)),),
                    wordings=_AWAIT_WORDINGS,
                    slots={"function": source.name_of(function), "call": source.segment(called)},
                    is_restored=True,
                )
                break


def propose_types(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """A signature without the author's types."""
    for function in _shuffled(source, generator):
        parameters, returned = function.child_by_field_name("parameters"), function.child_by_field_name("return_type")
        hints = [
            hint
            for part in (parameters.named_children if parameters is not None else [])
            if (hint := part.child_by_field_name("type")) is not None
        ]
        hints += [returned] if returned is not None and returned.type == "type_annotation" else []
        if hints:
            yield Proposal(
                patches=tuple(source.replace(hint, "") for hint in hints),
                wordings=_TYPE_WORDINGS,
                slots={"function": source.name_of(function)},
                is_restored=True,
            )


def _shuffled(source: TreeSource, generator: Random) -> list:  # type: ignore[type-arg]
    functions = source.functions[:]
    generator.shuffle(functions)
    return functions


REWRITES = (
    Rewrite(name="strict_equality", propose=propose_equality, languages=_SCRIPTS, weight=0.7),
    Rewrite(name="prefer_const", propose=propose_const, languages=_SCRIPTS, weight=0.5),
    Rewrite(name="template_string", propose=propose_template, languages=_SCRIPTS, weight=2.0),
    Rewrite(name="fix_missing_await", propose=propose_await, languages=_SCRIPTS, weight=2.0),
    Rewrite(name="add_types", propose=propose_types, languages=_TYPED, weight=1.0),
)
