"""Which licence a source stands under, and whether we may train on it.

What a package says about itself (SPDX expression, classifier, free text) and what its licence files say must agree.
Only licences of ``PERMISSIVE`` pass, without restrictions added to them; whatever cannot be told, of one licence file
beside others too, is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from train.data.errors import LicenceRefused

PERMISSIVE = frozenset({"MIT", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Apache-2.0", "ISC", "PSF-2.0", "CC0-1.0"})
LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING|UNLICENSE)([-._].*)?", re.IGNORECASE)

# How people write a licence in free text or choose it as a classifier; "BSD" alone leaves the clauses open.
_BSD = ("BSD-2-Clause", "BSD-3-Clause")
_NAMES: dict[str, tuple[str, ...]] = {
    "mit": ("MIT",), "mit license": ("MIT",), "the mit license": ("MIT",), "expat": ("MIT",),
    "the mit license (mit)": ("MIT",), "mit licence": ("MIT",),
    "bsd": _BSD, "bsd license": _BSD, "new bsd": ("BSD-3-Clause",), "new bsd license": ("BSD-3-Clause",),
    "modified bsd": ("BSD-3-Clause",), "simplified bsd": ("BSD-2-Clause",),
    "bsd 3-clause": ("BSD-3-Clause",), "bsd 3-clause license": ("BSD-3-Clause",), "3-clause bsd": ("BSD-3-Clause",),
    "bsd 2-clause": ("BSD-2-Clause",), "bsd 2-clause license": ("BSD-2-Clause",), "bsd-3-clause license":
    ("BSD-3-Clause",),
    "apache": ("Apache-2.0",), "apache 2": ("Apache-2.0",), "apache 2.0": ("Apache-2.0",),
    "apache-2": ("Apache-2.0",), "apache 2.0 license": ("Apache-2.0",), "apache license 2.0": ("Apache-2.0",),
    "apache license, version 2.0": ("Apache-2.0",), "apache license version 2.0": ("Apache-2.0",),
    "apache software license": ("Apache-2.0",), "apache software license 2.0": ("Apache-2.0",),
    "isc license": ("ISC",), "isc license (iscl)": ("ISC",),
    "psf": ("PSF-2.0",), "psfl": ("PSF-2.0",), "python software foundation license": ("PSF-2.0",),
    "cc0 1.0 universal (cc0 1.0) public domain dedication": ("CC0-1.0",), "cc0": ("CC0-1.0",),
}  # fmt: skip

_PERMISSION = "permission is hereby granted, free of charge, to any person obtaining a copy"
_PURPOSE = "permission to use, copy, modify, and or distribute this software for any purpose"
_PURPOSE_OLD = "permission to use, copy, modify, and distribute this software for any purpose"
_REDISTRIBUTION = "redistributions of source code must retain the above copyright"
_ENDORSE = ("endorse or promote products", "used to endorse or promote")
# Python's licence speaks of the GPL without asking for it.
_PYTHON_REMARK = "previously distributed under the gnu general public license"
# A text with one of these is of a licence that asks for more than attribution.
_REFUSED_TEXTS = {
    "gnu affero general public license": "AGPL", "gnu lesser general public license": "LGPL",
    "gnu library general public license": "LGPL", "gnu general public license": "GPL",
    "mozilla public license": "MPL", "eclipse public license": "EPL", "european union public licence": "EUPL",
    "common development and distribution license": "CDDL", "boost software license": "BSL-1.0",
    "server side public license": "SSPL", "business source license": "BUSL",
    "creative commons attribution-sharealike": "CC-BY-SA", "creative commons attribution-noncommercial": "CC-BY-NC",
    "functional source license": "FSL", "commons clause": "Commons Clause", "elastic license": "Elastic-2.0",
    "shall be used for good": "JSON",
}  # fmt: skip
# A licence file that only points at the ones beside it, which are read themselves.
_POINTER = re.compile(r"made available under the terms of either of the licenses found in license\.\w+ or license\.\w+")
_POINTER_CHARACTERS = 400
# Words by which a licence restricts use, often on top of the wording of a permissive one. They count in licence files
# only: in the first lines of a source file they may mean something else.
_RESTRICTIONS = {
    "polyform": "PolyForm", "competing use": "no competing use", "noncommercial": "non-commercial use",
    "non-commercial": "non-commercial use", "non commercial": "non-commercial use",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LicenceClaim:
    """What a source says about its licence: SPDX expression, free text, classifiers, and the licence files' texts."""

    expression: str = ""
    free_text: str = ""
    classifiers: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=(), repr=False)


def decide_licence(name: str, claim: LicenceClaim) -> str:
    """The SPDX expression that a source may be used under.

    Raises:
        LicenceRefused: not on the list, not to be told, or metadata and files disagree; names source and licence.
    """
    by_file = [recognise(text) for text in claim.files if text.strip() and not _is_pointer(text)]
    found = sorted(set().union(*by_file))
    bad = [licence for licence in found if licence not in PERMISSIVE]
    if bad:
        raise _refuse(name, ", ".join(bad), "its licence file says so")
    if found and not all(by_file):
        raise _refuse(name, f"{', '.join(found)} and another", "a licence file beside could not be recognised")
    stated = _stated(claim)
    if contrary := _contrary_classifiers(claim, stated):
        raise _refuse(name, ", ".join(contrary), "a classifier of its metadata says so")
    if stated is None:
        if not found:
            raise _refuse(name, "unknown", "neither metadata nor a licence file that could be recognised say which")
        return " AND ".join(found)  # all of them allowed: whichever holds, these terms are kept
    allowed = [choice for choice in stated if all(part in PERMISSIVE for part in choice)]
    if not allowed:
        raise _refuse(name, " OR ".join(" AND ".join(choice) for choice in stated), "its metadata say so")
    if not found:
        raise _refuse(name, " AND ".join(allowed[0]), "its metadata say so, but no licence file could be recognised")
    matching = [choice for choice in allowed if set(choice) & set(found)]
    if not matching:
        raise _refuse(name, " AND ".join(allowed[0]), f"its licence file reads like {', '.join(found)}")
    # Of several allowed choices, the one whose texts are all there.
    best = max(matching, key=lambda choice: len(set(choice) & set(found)))
    return " AND ".join(best)


def _refuse(name: str, licence: str, reason: str) -> LicenceRefused:
    return LicenceRefused(
        f"{name}: licence {licence} ({reason}) is not accepted; allowed are {', '.join(sorted(PERMISSIVE))}. "
        "Take it off the manifest"
    )


def _stated(claim: LicenceClaim) -> list[tuple[str, ...]] | None:
    """Choices (any of them holds), each of them licences that hold together; None if nothing is said."""
    if claim.expression:
        return parse_expression(claim.expression)
    text = claim.free_text.strip()
    if text and len(text) < 100:
        named = _NAMES.get(text.lower().rstrip("."))
        if named is not None:
            return [(licence,) for licence in named]
        if re.fullmatch(r"[A-Za-z0-9.+-]+( +(AND|OR|WITH) +[A-Za-z0-9.+-]+)*", text):
            return parse_expression(text)
    endings = _endings(claim)
    if endings:
        choices = [_NAMES.get(ending.lower(), (ending,)) for ending in endings]
        return [(licence,) for choice in choices for licence in choice]
    texts = recognise(text)
    if texts:
        return [tuple(sorted(texts))]
    return [(text.splitlines()[0][:60],)] if text else None  # words that mean nothing to us are no permission


def _contrary_classifiers(claim: LicenceClaim, stated: list[tuple[str, ...]] | None) -> list[str]:
    """Classifiers of licences that are not on the list, where the statement leaves no such choice open."""
    if stated is None or any(part not in PERMISSIVE for choice in stated for part in choice):
        return []
    return [ending for ending in _endings(claim) if not set(_NAMES.get(ending.lower(), (ending,))) <= PERMISSIVE]


def _endings(claim: LicenceClaim) -> list[str]:
    """What the classifiers call the licence."""
    endings = [entry.split("::")[-1].strip() for entry in claim.classifiers if entry.startswith("License ::")]
    return [ending for ending in endings if ending != "OSI Approved"]


def parse_expression(expression: str) -> list[tuple[str, ...]]:
    """An SPDX expression as choices of licences that hold together: ``A AND (B OR C)`` is [(A, B), (A, C)].

    Raises:
        LicenceRefused: not an SPDX expression.
    """
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)
    choices, rest = _parse_or(tokens, expression)
    if rest:
        raise LicenceRefused(f"licence expression {expression!r} cannot be read")
    return [tuple(sorted(choice)) for choice in choices]


_Choices = list[frozenset[str]]


def _parse_or(tokens: Sequence[str], whole: str) -> tuple[_Choices, Sequence[str]]:
    choices, rest = _parse_and(tokens, whole)
    while rest and rest[0].upper() == "OR":
        more, rest = _parse_and(rest[1:], whole)
        choices = choices + more
    return choices, rest


def _parse_and(tokens: Sequence[str], whole: str) -> tuple[_Choices, Sequence[str]]:
    choices, rest = _parse_one(tokens, whole)
    while rest and rest[0].upper() == "AND":
        more, rest = _parse_one(rest[1:], whole)
        choices = [left | right for left in choices for right in more]
    return choices, rest


def _parse_one(tokens: Sequence[str], whole: str) -> tuple[_Choices, Sequence[str]]:
    if not tokens or tokens[0] == ")" or tokens[0].upper() in ("AND", "OR", "WITH"):
        raise LicenceRefused(f"licence expression {whole!r} cannot be read")
    if tokens[0] == "(":
        choices, rest = _parse_or(tokens[1:], whole)
        if not rest or rest[0] != ")":
            raise LicenceRefused(f"licence expression {whole!r} cannot be read")
        return choices, rest[1:]
    name, rest = tokens[0], tokens[1:]
    if len(rest) >= 2 and rest[0].upper() == "WITH":  # an exception changes the terms: another licence
        name, rest = f"{name} WITH {rest[1]}", rest[2:]
    return [frozenset({name})], rest


def _flatten(text: str) -> str:
    """A text in lower case on one line, without the marks that comments and emphasis put into it."""
    return re.sub(r"[\s*#/>;\"'`]+", " ", text.lower())


def _is_pointer(text: str) -> bool:
    return len(text) <= _POINTER_CHARACTERS and _POINTER.search(_flatten(text)) is not None


def recognise(text: str) -> set[str]:
    """The licences whose wording stands in a text, by SPDX name; empty for a text that is no known licence."""
    flat = _flatten(text).replace(_PYTHON_REMARK, "")
    found = {name for phrase, name in (_REFUSED_TEXTS | _RESTRICTIONS).items() if phrase in flat}
    if _PERMISSION in flat:
        found.add("MIT")
    if _REDISTRIBUTION in flat:
        if "all advertising materials mentioning" in flat:
            found.add("BSD-4-Clause")
        else:
            found.add("BSD-3-Clause" if any(phrase in flat for phrase in _ENDORSE) else "BSD-2-Clause")
    if "apache license" in flat and "version 2.0" in flat:
        found.add("Apache-2.0")
    if _PURPOSE in flat or _PURPOSE_OLD in flat:
        found.add("ISC" if "provided that the above copyright" in flat else "0BSD")
    if "python software foundation license version 2" in flat:
        found.add("PSF-2.0")
    if "cc0 1.0 universal" in flat or "creative commons zero" in flat:
        found.add("CC0-1.0")
    return found


_HEADER_CHARACTERS = 3000
_SPDX_HEADER = re.compile(r"SPDX-License-Identifier:\s*([^\n*]+)")


def header_refusal(text: str) -> str:
    """The licence that a file's own first lines name, if it is not on the list; empty if there is no objection."""
    head = text[:_HEADER_CHARACTERS]
    tag = _SPDX_HEADER.search(head)
    if tag is not None:
        named = tag.group(1).strip().removesuffix("-->").removesuffix("*/").strip()
        try:
            choices = parse_expression(named)
        except LicenceRefused:
            return named
        return "" if any(all(part in PERMISSIVE for part in choice) for choice in choices) else named
    flat = re.sub(r"[\s*#/>;]+", " ", head.lower())
    return next((name for phrase, name in _REFUSED_TEXTS.items() if phrase in flat), "")


def join_licences(names: Iterable[str]) -> str:
    """Distinct names in order, for a line of a table."""
    return ", ".join(sorted(set(names)))
