"""Fix a bug: one operator or condition of the author's code was changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.seeded_bug import EXACT_WORDINGS, GENERAL_WORDINGS, HINTED_WORDINGS
from train.data.synthetic.tree_source import TreeSource

if TYPE_CHECKING:
    from tree_sitter import Node

_ALL = frozenset({"javascript", "javascriptreact", "typescript", "typescriptreact", "go", "rust", "java", "c", "cpp"})
_BOUNDS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_COMPARISONS = {"==": "!=", "!=": "==", "===": "!==", "!==": "===", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_CONNECTIVES = {"&&": "||", "||": "&&"}
_ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True)
class OperatorBug:
    """Operators that are taken for each other; ``wrong`` says what is wrong with ``{code}``, the bad code."""

    swaps: tuple[tuple[str, str], ...]
    wrong: str
    is_findable: bool

    def __call__(self, source: TreeSource, generator: Random) -> Iterator[Proposal]:
        """One wrong operator in random functions that are no tests."""
        swaps = dict(self.swaps)
        functions = [
            function for function in source.functions if not source.name_of(function).lower().startswith("test")
        ]
        generator.shuffle(functions)
        for function in functions:
            found = [
                node
                for node in source.walk(function)
                if node.type == "binary_expression" and _operator(source, node) in swaps
            ]
            generator.shuffle(found)
            for node in found[:1]:
                right = _operator(source, node)
                sign = node.child_by_field_name("operator")
                text = " ".join(source.segment(node).split())
                if (
                    sign is None
                    or _is_asserted(source, node)
                    or len(text) > 70
                    or (right in _ARITHMETIC and _has_string(node))
                ):
                    continue
                span, whole = source.span(sign), source.span(node)
                bad = source.text[whole.start : span.start] + swaps[right] + source.text[span.end : whole.end]
                wrong = self.wrong.replace("{code}", f"`{' '.join(bad.split())}`")
                groups = (GENERAL_WORDINGS, HINTED_WORDINGS, EXACT_WORDINGS)
                yield Proposal(
                    patches=(Patch(span.start, span.end, swaps[right]),),
                    wordings=generator.choices(groups, (0.25 if self.is_findable else 0.0, 0.4, 0.35))[0],
                    slots={
                        "function": source.name_of(function),
                        "wrong_text": wrong,
                        "remedy_text": f"`{' '.join(bad.split())}` should be `{text}`",
                    },
                    is_restored=True,
                )


def propose_inverted(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """A negation that is missing in the condition of an ``if``."""
    for node in _shuffled([node for node in source.nodes if node.type == "if_statement"], generator):
        function = _function_of(source, node)
        condition = node.child_by_field_name("condition")
        while condition is not None and condition.type == "parenthesized_expression" and condition.named_children:
            condition = condition.named_children[0]
        if function is None or condition is None or condition.type != "unary_expression":
            continue
        text = source.segment(condition)
        if not text.startswith("!") or len(text) > 60 or "\n" in text:
            continue
        bad = text[1:]
        yield Proposal(
            patches=(source.replace(condition, bad),),
            wordings=generator.choice((GENERAL_WORDINGS, HINTED_WORDINGS, EXACT_WORDINGS)),
            slots={
                "function": source.name_of(function),
                "wrong_text": f"the condition `{bad}` is inverted",
                "remedy_text": f"Replace `{bad}` by `{text}`",
            },
            is_restored=True,
        )


def _is_asserted(source: TreeSource, node: Node) -> bool:
    """Whether the expression stands in an assertion: nothing but the author knows what it should say."""
    outer = node.parent
    while outer is not None and not outer.type.endswith(("statement", "declaration")):
        called = outer.child_by_field_name("function") or outer.child_by_field_name("name")
        if called is not None and re.search("assert|expect|require", source.segment(called), re.IGNORECASE):
            return True
        outer = outer.parent
    return False


def _operator(source: TreeSource, node: Node) -> str:
    sign = node.child_by_field_name("operator")
    return source.segment(sign) if sign is not None else ""


def _has_string(node: Node) -> bool:
    return any("string" in child.type or child.type == "binary_expression" for child in node.named_children)


def _function_of(source: TreeSource, node: Node) -> Node | None:
    outer = node.parent
    while outer is not None:
        if outer in source.functions:
            return outer
        outer = outer.parent
    return None


def _shuffled(nodes: list[Node], generator: Random) -> list[Node]:
    generator.shuffle(nodes)
    return nodes


REWRITES = (
    Rewrite(
        name="fix_off_by_one",
        propose=OperatorBug(tuple(_BOUNDS.items()), "the boundary case is wrong in {code}", False),
        languages=_ALL,
        weight=0.7,
    ),
    Rewrite(
        name="fix_wrong_comparison",
        propose=OperatorBug(tuple(_COMPARISONS.items()), "the comparison {code} is the wrong way round", False),
        languages=_ALL,
        weight=0.7,
    ),
    Rewrite(
        name="fix_wrong_connective",
        propose=OperatorBug(tuple(_CONNECTIVES.items()), "the conditions in {code} are connected wrongly", True),
        languages=_ALL,
        weight=0.7,
    ),
    Rewrite(
        name="fix_wrong_operator",
        propose=OperatorBug(tuple(_ARITHMETIC.items()), "the calculation {code} is wrong", False),
        languages=_ALL,
        weight=0.7,
    ),
    Rewrite(name="fix_inverted_condition", propose=propose_inverted, languages=_ALL, weight=0.7),
)
