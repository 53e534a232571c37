"""Which commit messages say what to change, and how they read as an instruction."""

from __future__ import annotations

import re

from train.data.instructions import first_sentence, is_verb, read_words

MIN_WORDS, MIN_CHARACTERS, MAX_CHARACTERS, MAX_BODY_CHARACTERS = 3, 14, 160, 220

_BOT = re.compile(
    r"""
    \[bot\] | \bbots?\b | dependabot | renovate | pre-commit | github-actions | greenkeeper | pyup | weblate | transifex
    | jenkins
    """,
    re.IGNORECASE | re.VERBOSE,
)
# What stands before the real subject.
_PREFIXES = re.compile(
    r"""
    ^(?:
        \[[^\]]{1,30}\]\s*  # [core]
      | :[a-z_]+:\s*  # :bug:
      | (?: (?:bpo|gh|issue|bug|ticket|pr)[-#\ ]?\d+ | \#\d+ | [A-Z]{2,10}-\d+ ) \s*[:,.-]*\s*  # gh-12: #12 ABC-12
      | [a-z_./*-]{2,25} (?:\([^)]*\))? !? :\s+  # fix(parser): lib/x.c:
      | (?:refs?|fix(?:es|ed)?|close[sd]?|thanks)\s+\#\d+(?:\s*,\s*\#\d+)*\s*(?:--|[-:,.])\s*  # Fixed #12 --
    )+
    """,
    re.IGNORECASE | re.VERBOSE,
)
_REFERENCES = re.compile(
    r"""
    \s*[\[(]?
    (?: (?:fix(?:es|ed)?|close[sd]?|resolve[sd]?|see|refs?|part\ of|re|issue|pr|for|per|as\ in)\s+ )?
    (?:gh-|bpo-|\#)\d+ (?:\s*(?:,|and|&)\s*\#\d+)*
    [\])]?
    """,
    re.IGNORECASE | re.VERBOSE,
)
# What is not about the code, or does not say what about it.
_REFUSED_STARTS = re.compile(
    r"""
    ^(?:
        merge | revert | bump | release | reland | rollback | roll\ back | version | wip\b | work\ in\ progress |
        initial\ commit | first\ commit | init\b | prepare | backport | cherry | fixup! | squash! | amend! |
        v?\d+(?:\.\d+)+ | auto | apply | lint | format | reformat | black | blacken | ruff | flake8 | isort |
        pep\ ?8 | pylint | mypy | style | whitespace | misc | temp | tmp | save | backup | checkpoint | oops | hm+
        | arg+h* | sync | upgrade | vendor | regenerate | regen | forward.?port | happy | trying | post-release |
        start | begin | tag | set\ version | finish\ up | another | still | more\ fix
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_REFUSED_WORDS = re.compile(
    r"""
    \b(?:
        review | feedback | changelog | change\ log | readme | news\ entr(?:y|ies) | release\ notes | copyright |
        licen[cs]e | travis | appveyor | circleci | github\ action s? | codecov | coverage | pre-commit |
        dependabot | version\ (?:to|bump|number) | pull\ request | merge\ conflict s? | prev(?:ious)?\ commit |
        last\ commit | this\ (?:pr|commit|branch) | typos? | spelling | flake8 | pylint | pyflakes | whitespace |
        trailing | indentation | line\ length | too\ long | docs?\ build | sphinx | copypasta | requirements |
        (?:dev\ )?dependenc(?:y|ies) | deps | version\ strings? |
        2to3
    )\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_VAGUE = read_words(
    """
    a add again all an and another better big broken bug bugs build change changed changes clean cleanup cleanups code
    comment comments doc docs documentation edit edited error errors failing few file files final fix fixed fixes fixing
    for from improve improved improvement improvements in is issue issues it little make minor more now of on or other
    really refactor refactoring remove several small some stuff test testing tests that the thing things this tiny to
    tweak tweaks up update updated updates use various with work working works
    """
)
_BEFORE_VERBS = read_words(
    "don't dont never always properly correctly only also actually explicitly automatically better"
)
_TEST_CLAUSE = re.compile(
    r"""
    \s*(?: [,;(+&] | \band\b | \bwith\b | \bplus\b )+ \s*
    (?: (?:add(?:s|ed|ing)?|updat(?:e|es|ed|ing)|includ(?:e|es|ing)|writ(?:e|es|ing)|fix(?:es)?)\s+ )?
    (?: (?:a|the|some|new|unit|regression|corresponding|related|more|its|associated)\s+ )*
    tests? (?:\s+cases?)? \b[^,;]*$
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PERSONAL = re.compile(r"\b(I|I'm|my|imo|afaik|iirc)\b", re.IGNORECASE)
_TRAILING_VERSION = re.compile(r"[\s.,:(]+v?\d+(\.\d+){1,3}\)?$")
_TRAILER = re.compile(
    r"""
    ^(?: [A-Z][A-Za-z-]+:\  # Signed-off-by: ...
      | \(?(?:fix|close|resolve|see|ref|co-authored|signed-off|reviewed|change-id|suggested|reported|cc|pr|bug)
        \b.{0,40}(?:\#|http|@|:)
      | [-*+\#>|`=~] )  # lists, quotes, code
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ENGLISH = read_words(
    """
    a an and are as at be by for from if in instead into is it not of on only than that the this to was when with
    """
)


def clean_message(message: str, author: str = "", email: str = "") -> str | None:
    """The message as an instruction: its subject, and the body's first sentence where that explains more.

    Returns:
        None for a message that does not say what to change: a merge or revert, a version bump, a bot's, a ticket
        number, words that fit any commit, or not English.
    """
    if _BOT.search(author) or _BOT.search(email):
        return None
    head, _, body = message.strip().partition("\n")
    if _is_refused(head):
        return None
    plain = _REFERENCES.sub("", _PREFIXES.sub("", head.strip()))
    subject = " ".join(
        _imperative(_TRAILING_VERSION.sub("", _TEST_CLAUSE.sub("", plain).strip(" .")).strip(" .;:,-")).split()
    )
    if not subject or _is_refused(subject) or not _says_something(subject):
        return None
    sentence = _useful_sentence(body)
    return f"{subject}. {sentence}." if sentence else subject


def _is_refused(text: str) -> bool:
    return bool(_REFUSED_STARTS.search(text) or _REFUSED_WORDS.search(text))


def _says_something(subject: str) -> bool:
    words = re.findall(r"[\w'.-]+", subject)
    if (
        not MIN_CHARACTERS <= len(subject) <= MAX_CHARACTERS
        or len(words) < MIN_WORDS
        or "://" in subject
        or "#" in subject
    ):
        return False
    if sum(not character.isascii() for character in subject) > 0.05 * len(subject) or not _begins_with_verb(words):
        return False
    telling = [word for word in words if word.lower() not in _VAGUE and any(map(str.isalpha, word))]
    return len(telling) >= 2


def _begins_with_verb(words: list[str]) -> bool:
    """Whether the words are an order: a verb, or ``don't``, ``always``, ``properly`` and the like before one."""
    first = words[0].lower()
    if first == "do" and words[1].lower() == "not":
        return is_verb(words[2].lower())
    return is_verb(words[1].lower()) if first in _BEFORE_VERBS else is_verb(first)


def _imperative(subject: str) -> str:
    """The subject with its first word as an order: ``Added``, ``Adds`` and ``Adding`` become ``Add``."""
    word, space, rest = subject.partition(" ")
    lowered = word.lower()
    if rest.startswith("of "):
        return subject  # "Handling of ..." is no order
    candidates = [lowered]
    for ending in ("ing", "ied", "ies", "ed", "es", "d", "s"):
        if lowered.endswith(ending):
            stem = lowered[: -len(ending)]
            candidates += [stem + "y"] if ending in ("ied", "ies") else [stem, stem + "e"]
            if len(stem) > 3 and stem[-1:] == stem[-2:-1]:
                candidates.append(stem[:-1])
    found = next((candidate for candidate in candidates if is_verb(candidate)), None)
    return subject if found is None else found.capitalize() + space + rest


def _useful_sentence(body: str) -> str:
    """The first sentence of the body's first paragraph of prose; empty where there is none."""
    for paragraph in re.split(r"\n\s*\n", body.strip()):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        if not lines or any(_TRAILER.match(line.strip()) for line in lines) or lines[0].startswith(("  ", "\t")):
            continue
        sentence = _REFERENCES.sub("", first_sentence(paragraph)).strip(" .;:,-")
        words = sentence.lower().split()
        is_prose = (
            len(words) >= 5
            and sum(word in _ENGLISH for word in words) >= 2
            and sentence[:1].isalnum()
            and not _PERSONAL.search(sentence)
        )
        is_clean = "://" not in sentence and "#" not in sentence and "@" not in sentence and sentence.isascii()
        if is_prose and is_clean and len(sentence) <= MAX_BODY_CHARACTERS and not _is_refused(sentence):
            return sentence
        return ""
    return ""
