"""Errors in Go and Rust, handled as the author does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.tree_source import TreeSource

_GO_WORDINGS = (
    "Handle the error of {call}",
    "Check the error that {call} returns",
    "check err",
    "The error of {call} is ignored",
    "Return the error if {call} fails",
    "{function} should return early when {call} fails",
    "Add the missing error check after {call}",
    "Propagate the error from {call} in {function}",
    "Do not ignore err in {function}",
    "errcheck: the result of {call} is not checked",
)
_RUST_WORDINGS = (
    "Propagate the error instead of unwrapping",
    "Use the ? operator",
    "Replace unwrap() by ?",
    "{function} must not panic here, return the error",
    "Do not unwrap in {function}",
    "Use ? instead of unwrap on {code}",
    "unwrap -> ?",
    "{code} may fail: pass the error to the caller",
    "Remove the unwrap from {function}",
    "Return the error of {code} instead of panicking",
)


def propose_go(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """``if err != nil { return ... }`` right after the call that sets ``err``."""
    nodes = [node for node in source.nodes if node.type == "if_statement"]
    generator.shuffle(nodes)
    for node in nodes:
        text = source.segment(node)
        previous = node.prev_named_sibling
        if previous is None or not re.fullmatch(r"if err != nil \{\s*return [^\n]*\berr\b[^\n]*\s*\}", text):
            continue
        called = re.match(r"(?:[\w, .]+(?::=|=) )([\w.]+)\(", source.segment(previous))
        function = next(
            (part for part in source.functions if part.start_byte < node.start_byte and node.end_byte <= part.end_byte),
            None,
        )
        if called is None or function is None or "err" not in source.segment(previous).split("=")[0]:
            continue
        span = source.lines(source.span(node))
        yield Proposal(
            patches=(Patch(span.start, span.end, ""),),
            wordings=_GO_WORDINGS,
            slots={"call": called[1], "function": source.name_of(function)},
            is_restored=True,
        )


def propose_rust(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """``.unwrap()`` where the author passes the error on."""
    nodes = [node for node in source.nodes if node.type == "try_expression"]
    generator.shuffle(nodes)
    for node in nodes:
        inner = node.named_children[0] if node.named_children else None
        function = next(
            (part for part in source.functions if part.start_byte < node.start_byte and node.end_byte <= part.end_byte),
            None,
        )
        if inner is None or function is None:
            continue
        code = source.segment(inner)
        if len(code) < 60 and "\n" not in code:
            yield Proposal(
                patches=(source.replace(node, f"{code}.unwrap()"),),
                wordings=_RUST_WORDINGS,
                slots={"function": source.name_of(function), "code": code},
                is_restored=True,
            )


REWRITES = (
    Rewrite(name="handle_error", propose=propose_go, languages=frozenset({"go"}), weight=1.5),
    Rewrite(name="propagate_error", propose=propose_rust, languages=frozenset({"rust"}), weight=1.5),
)
