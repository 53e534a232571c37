"""Which metrics and labels a PromQL expression asks for. Enough of the grammar for dashboards and alert rules."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPERATORS = {"and", "or", "unless", "bool", "offset", "group_left", "group_right", "inf", "nan"}
_AGGREGATIONS = {"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "stddev"}
_WORDS = frozenset(_OPERATORS | _AGGREGATIONS)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_MATCHER = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")


@dataclass(frozen=True)
class Query:
    """``metrics`` maps a metric's name to the labels its selectors name; ``grouped`` are labels of by() and on()."""

    metrics: dict[str, frozenset[str]]
    grouped: frozenset[str]


def parse_promql(expression: str) -> Query:
    text = _STRING.sub('""', expression)
    for begin, end in ("()", "{}", "[]"):
        assert text.count(begin) == text.count(end), expression
    grouped = frozenset(
        label.strip() for group in _GROUPING.findall(text) for label in group.split(",") if label.strip()
    )
    text = _GROUPING.sub(" ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)  # ranges
    metrics: dict[str, frozenset[str]] = {}
    for match in _SELECTOR.finditer(text):
        name, labels = match[1], match[2] or ""
        is_function = text[match.end() :].lstrip().startswith("(")
        if is_function or name in _WORDS or text[: match.start()][-1:].isdigit():
            continue
        found = frozenset(matcher[1] for part in labels.split(",") if (matcher := _MATCHER.match(part)))
        metrics[name] = metrics.get(name, frozenset()) | found
    return Query(metrics, grouped)
