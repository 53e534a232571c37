"""How an edit is asked for: wordings with slots, and the small differences between how people write.

A wording is a template such as ``Rename {old} to {new} in {function}``. Slots named ``..._text`` are prose and stand
as they are; all others are code, which some people put in backticks, some in quotes, and some not at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random


def read_words(text: str) -> frozenset[str]:
    """The words of a text that lists them."""
    return frozenset(text.split())


_BARE_CODE = re.compile(r"[A-Za-z_][\w.]*(\(\))?|\d+(\.\d+)?")
_SLOT = re.compile(r"\{(\w+)\}")
_POLITE = ("Please {}", "Can you {}?", "Could you {}?", "I want you to {}", "please {}", "can you {}", "We should {}")
# Only a sentence that begins with one of these can follow "please".
_IMPERATIVES = read_words(
    """
    Add Allow Annotate Apply Assign Avoid Await Bring Build Call Catch Chain Change Check Clean Close Collapse Combine
    Comment Compute Convert Correct Create Cut Declare Define Delete Derive Document Drop Emit Explain Expose Extract
    Factor Fill Find Finish Fix Flatten Flip Fold Format Generate Get Give Group Guard Handle Have Hoist Implement
    Import Initialise Initialize Inline Introduce Invert Iterate Join Keep Let Limit Log Loop Make Merge Modernise
    Modernize Move Name Narrow Negate Order Parametrize Pass Pull Put Raise Record Reduce Refactor Reject Remove Rename
    Reorder Repair Replace Report Restore Return Rewrite Set Simplify Sort Spell Split Stop Strip Swap Switch Take Tidy
    Turn Type Unnest Unpack Update Use Validate Wrap Write
    """
)
_OTHER_VERBS = read_words(
    """
    abort accept acquire activate adapt adjust advance alias align amend append ask attach attempt authenticate bail
    begin bind block break bypass cache calculate cancel cast clamp clarify clear clone coerce collect compare compile
    complain compose configure confirm connect consider construct consume cope copy correct count decide decode
    decompress decorate decrement default defer delay delete deprecate derive describe deserialize detect determine
    disable disallow discard discover dispatch display distinguish divide do download draw dump emit enable encode
    encrypt ensure enter enumerate escape estimate evaluate exclude execute exit expand export extend fail favor favour
    fetch flush forbid force forward freeze gather go guess harden hash hide honor honour identify ignore improve
    include increase increment indicate infer inherit initialise initialize insert inspect install instantiate
    interpolate interpret invalidate invoke isolate launch link list listen load locate lock look lower maintain map
    mark match migrate mock modify monitor normalise normalize notify obtain omit open optimise optimize output overload
    override parallelize parse patch perform permit pick plot point populate postpone prefer prepare preserve prevent
    print process produce prohibit prompt propagate protect provide push query quote read rearrange rebuild receive
    recognise recognize recover redirect refresh regard register reintroduce relax reload rely remember render
    reorganize request require reserve reset resolve respect resume retain retrieve retry reuse revise roll round run
    sample sanitize save scan schedule search secure select send separate serialise serialize setup share shorten show
    shut silence skip speed stabilize standardize start store submit subtract suggest support suppress suspend
    synchronise synchronize tell test throw tighten toggle tokenize trace track train translate traverse treat trigger
    trim truncate try tune unify unquote unregister unset unwrap update upload utilize verify visit wait walk warn widen
    yield
    """
)


def word_instruction(wordings: Sequence[str], slots: Mapping[str, str], generator: Random) -> str:
    """One wording with its slots filled, in one person's manner of writing."""
    wording = generator.choice(wordings)
    quote = generator.choices(("`", "'", ""), (0.6, 0.1, 0.3))[0]

    def fill(match: re.Match[str]) -> str:
        name, value = match[1], slots[match[1]]
        return value if name.endswith("_text") else quote_code(value, quote)

    return _vary_manner(_SLOT.sub(fill, wording), generator)


def quote_code(code: str, quote: str) -> str:
    """Code inside prose; what would be read as prose or contains the quote gets backticks, whatever was asked."""
    # Single quotes would turn a number or None into a text.
    is_value = code in ("None", "True", "False") or code[:1].isdigit()
    if _BARE_CODE.fullmatch(code) and (not quote or (quote == "'" and is_value)):
        return code
    chosen = "`" if not quote or quote in code else quote
    return code if "`" in code else f"{chosen}{code}{chosen}"


def join_instructions(first: str, second: str, generator: Random) -> str:
    """One instruction that asks for two things."""
    lowered = lower_first(second)
    head = first.rstrip(".")
    if "?" in first or "\n" in first:
        return f"{first} {second}"
    form = generator.choice(
        ("{a}. {b}", "{a}. Also {l}", "{a}, and {l}", "{a}; then {l}", "1. {a}\n2. {b}", "- {a}\n- {b}")
    )
    return form.format(a=head, b=second, l=lowered)


def lower_first(sentence: str) -> str:
    """The sentence as it stands in the middle of another."""
    word = sentence.split(" ", 1)[0]
    return sentence[:1].lower() + sentence[1:] if word.istitle() or word in ("A", "I") else sentence


def first_sentence(text: str) -> str:
    """The first sentence of a docstring or message, on one line and without its full stop; may be empty."""
    paragraph = text.strip().split("\n\n", 1)[0]
    line = " ".join(paragraph.split())
    match = re.match(r"(.+?[a-z0-9)`'\"\]])(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\betc)(?<!\bcf)\.(\s|$)", line)
    return (match[1] if match else line).rstrip(".:; ")


def is_verb(word: str) -> bool:
    """Whether the word is one of the verbs that instructions and docstrings begin with."""
    return word.capitalize() in _IMPERATIVES or word in _OTHER_VERBS


def _vary_manner(sentence: str, generator: Random) -> str:
    """Polite, lower-case, or with a full stop, as people write."""
    word = sentence.split(" ", 1)[0]
    if word in _IMPERATIVES and generator.random() < 0.08:
        form = generator.choice(_POLITE)
        return form.format(lower_first(sentence).rstrip("." if "?" in form else ""))
    if generator.random() < 0.25:
        sentence = lower_first(sentence)
    if sentence[-1] not in ".?!:" and generator.random() < 0.5:
        sentence += "."
    return sentence
