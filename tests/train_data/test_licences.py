"""Which sources may be trained on."""

from __future__ import annotations

from importlib import metadata

import pytest
from helpers.source_trees import APACHE, BSD_2, BSD_3, GPL, ISC, MIT, MPL
from hypothesis import given
from hypothesis import strategies as st

from train.data.errors import LicenceRefused
from train.data.licences import (
    LICENCE_FILE,
    PERMISSIVE,
    LicenceClaim,
    decide_licence,
    header_refusal,
    parse_expression,
    recognise,
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (MIT, {"MIT"}), (BSD_2, {"BSD-2-Clause"}), (BSD_3, {"BSD-3-Clause"}), (APACHE, {"Apache-2.0"}), (ISC, {"ISC"}),
        (GPL, {"GPL"}), (MPL, {"MPL"}), ("You may use this as you please.", set()),
        (MIT + BSD_3, {"MIT", "BSD-3-Clause"}),
        ("# Redistributions of source code must retain\n# the above copyright notice", {"BSD-2-Clause"}),
        ("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2\npreviously distributed under the GNU General Public License",
         {"PSF-2.0"}),
    ],
)  # fmt: skip
def test_licence_texts_are_recognised(text: str, names: set[str]) -> None:
    assert recognise(text) == names


@pytest.mark.parametrize(
    ("expression", "choices"),
    [
        ("MIT", [("MIT",)]),
        ("Apache-2.0 OR MIT", [("Apache-2.0",), ("MIT",)]),
        ("MIT AND (BSD-2-Clause OR GPL-3.0-only)", [("BSD-2-Clause", "MIT"), ("GPL-3.0-only", "MIT")]),
        ("MIT OR ISC AND PSF-2.0", [("MIT",), ("ISC", "PSF-2.0")]),
        ("Apache-2.0 WITH LLVM-exception", [("Apache-2.0 WITH LLVM-exception",)]),
    ],
)
def test_expressions_become_choices(expression: str, choices: list[tuple[str, ...]]) -> None:
    assert parse_expression(expression) == choices


@pytest.mark.parametrize("expression", ["", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT MIT"])
def test_a_broken_expression_is_refused(expression: str) -> None:
    with pytest.raises(LicenceRefused, match="cannot be read"):
        parse_expression(expression)


expressions = st.recursive(
    st.sampled_from(["MIT", "Apache-2.0", "ISC", "GPL-3.0-only", "Proprietary"]),
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
    max_leaves=6,
)


@given(expressions)
def test_an_expression_is_allowed_exactly_if_its_logic_says_so(expression: str) -> None:
    words = {name: name in PERMISSIVE for name in ("MIT", "Apache-2.0", "ISC", "GPL-3.0-only", "Proprietary")}
    logic = expression
    for name, is_allowed in words.items():
        logic = logic.replace(name, str(is_allowed))
    expected = eval(logic.replace("AND", "and").replace("OR", "or"))
    choices = parse_expression(expression)
    assert any(all(part in PERMISSIVE for part in choice) for choice in choices) == expected


@pytest.mark.parametrize(
    ("claim", "licence"),
    [
        (LicenceClaim(expression="MIT", files=(MIT,)), "MIT"),
        (LicenceClaim(expression="GPL-3.0-only OR Apache-2.0", files=(APACHE,)), "Apache-2.0"),
        (LicenceClaim(free_text="BSD", files=(BSD_3,)), "BSD-3-Clause"),
        (LicenceClaim(classifiers=("License :: OSI Approved :: BSD License",), files=(BSD_2,)), "BSD-2-Clause"),
        (LicenceClaim(files=(ISC,)), "ISC"),
        (LicenceClaim(free_text=MIT, files=(MIT,)), "MIT"),
        (LicenceClaim(files=(MIT, APACHE)), "Apache-2.0 AND MIT"),
    ],
)
def test_statement_and_licence_file_together_decide(claim: LicenceClaim, licence: str) -> None:
    assert decide_licence("thing", claim) == licence


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (LicenceClaim(expression="GPL-3.0-only", files=(GPL,)), "thing: licence GPL"),
        (LicenceClaim(expression="MIT AND MPL-2.0", files=(MIT,)), "MIT AND MPL-2.0"),
        (LicenceClaim(expression="MIT", files=(MIT, GPL)), "GPL .its licence file says so"),
        (LicenceClaim(expression="MIT", files=(APACHE,)), "its licence file reads like Apache-2.0"),
        (LicenceClaim(expression="MIT"), "no licence file could be recognised"),
        (LicenceClaim(), "thing: licence unknown"),
        (LicenceClaim(free_text="ask me", files=(MIT,)), "licence ask me"),
        (LicenceClaim(classifiers=("License :: Other/Proprietary License",), files=(MIT,)), "Proprietary"),
    ],
)
def test_what_is_not_on_the_list_or_unclear_is_refused(claim: LicenceClaim, message: str) -> None:
    with pytest.raises(LicenceRefused, match=message):
        decide_licence("thing", claim)


@pytest.mark.parametrize(
    "words",
    [
        "Functional Source License, Version 1.1, MIT Future License",
        '"Commons Clause" License Condition v1.0',
        "The Software shall be used for Good, not Evil.",
        "for noncommercial purposes only",
        "for Non-Commercial\n * use",
        "A Competing Use means making the Software available to others",
        "Elastic License 2.0",
        "PolyForm Shield License 1.0.0",
    ],
)
@pytest.mark.parametrize("text", [MIT, APACHE], ids=["MIT", "Apache-2.0"])
def test_a_restriction_added_to_a_permissive_text_is_refused(text: str, words: str) -> None:
    name = next(iter(recognise(text)))
    for files in ((f"{words}\n{text}",), (text, words)):
        with pytest.raises(LicenceRefused, match="its licence file says so"):
            decide_licence("thing", LicenceClaim(expression=name, files=files))


def test_a_licence_file_that_means_nothing_to_us_is_refused() -> None:
    with pytest.raises(LicenceRefused, match="beside could not be recognised"):
        decide_licence("thing", LicenceClaim(expression="MIT", files=(MIT, "Do not copy this.")))
    assert decide_licence("thing", LicenceClaim(expression="MIT", files=(MIT, "\n"))) == "MIT"


def test_a_classifier_that_says_otherwise_is_refused() -> None:
    gpl = "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"
    for stated in ({"free_text": "MIT"}, {"expression": "MIT"}, {"free_text": MIT}):
        with pytest.raises(LicenceRefused, match="its metadata say"):
            decide_licence("thing", LicenceClaim(**stated, classifiers=(gpl,), files=(MIT,)))
    both = LicenceClaim(expression="MIT OR GPL-3.0-only", classifiers=(gpl,), files=(MIT,))
    assert decide_licence("thing", both) == "MIT", "of two, one may be chosen"
    osi = ("License :: OSI Approved", "License :: OSI Approved :: MIT License")
    assert decide_licence("thing", LicenceClaim(free_text="MIT", classifiers=osi, files=(MIT,))) == "MIT"


@pytest.mark.parametrize(
    ("package", "licence"),
    [("anyio", "MIT"), ("safetensors", "Apache-2.0"), ("packaging", "Apache-2.0 OR BSD-2-Clause")],
)
def test_real_licences_are_accepted(package: str, licence: str) -> None:
    texts = [path.read_text() for path in metadata.files(package) or () if LICENCE_FILE.fullmatch(path.name)]
    assert texts and decide_licence(package, LicenceClaim(expression=licence, files=tuple(texts))) in licence


def test_a_file_with_a_licence_of_its_own_is_seen() -> None:
    assert header_refusal("# SPDX-License-Identifier: GPL-2.0-or-later\nx = 1\n") == "GPL-2.0-or-later"
    assert header_refusal("// SPDX-License-Identifier: MIT OR GPL-2.0-only\n") == ""
    assert header_refusal('"""Under the GNU Lesser\n# General Public License."""\n') == "LGPL"
    assert header_refusal("x = 1\n" * 900 + "# GNU General Public License\n") == ""
