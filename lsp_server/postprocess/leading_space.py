"""The space that a model writes although it stands before the cursor already.

A model's tokens begin with the space before a word. Where the text before the cursor ends with a space of its own
(after an indentation above all) the model likes to write ``" word"`` all the same: one space too many, and every
further line is too deep by it.
"""

from __future__ import annotations


def without_doubled_space(prefix: str, text: str) -> str:
    """``text`` as it belongs behind ``prefix``: without the doubled space, on its first line and the lines as deep.

    An indentation that is deeper by whole steps (even numbers) is meant so, and stays.
    """
    head = prefix[prefix.rfind("\n") + 1 :]
    num_extra = len(text) - len(text.lstrip(" "))
    if not head.endswith(" ") or not num_extra or num_extra == len(text):
        return text
    if head.strip():
        return text[1:] if num_extra == 1 else text
    if num_extra % 2 == 0:
        return text
    first, *others = text[num_extra:].split("\n")
    depth = len(head) + num_extra
    return "\n".join([first, *(_shift(line, depth, num_extra) for line in others)])


def _shift(line: str, depth: int, num_extra: int) -> str:
    own = len(line) - len(line.lstrip(" "))
    return line[num_extra:] if own >= depth else line
