"""Prompts that hold the fill-in-the-middle markers of a model, as editor plugins write them.

The markers never reach the model as text of a user: either a prompt has the exact shape of one of the layouts below and
is taken apart, or all of it is ordinary text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from diffusion_core.requests import Snippet


@dataclass(frozen=True, slots=True)
class FilledIn:
    """The parts of a prompt with a hole."""

    prefix: str
    suffix: str
    repository: str = ""
    path: str = ""
    snippets: tuple[Snippet, ...] = ()


@dataclass(frozen=True, slots=True)
class _Markers:
    prefix: str
    suffix: str
    middle: str


_QWEN = _Markers("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
_SEED = _Markers("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>")
_REPOSITORY, _FILE = "<|repo_name|>", "<|file_sep|>"


def take_apart(prompt: str) -> FilledIn | None:
    """The parts of ``prompt``, or None where it is ordinary text.

    Text before the first marker is other files in Qwen's repository format, or stands before the prefix. Text behind
    the last one is the beginning of the middle.
    """
    for markers in (_QWEN, _SEED):
        names = (markers.prefix, markers.suffix, markers.middle)
        if not all(prompt.count(name) == 1 for name in names):
            continue
        first = min(prompt.index(markers.prefix), prompt.index(markers.suffix))
        before = prompt[:first]
        head, middle = prompt[first:].split(markers.middle) if prompt.rindex(markers.middle) > first else ("", "")
        if head.startswith(markers.prefix) and markers.suffix in head:
            prefix, suffix = head.removeprefix(markers.prefix).split(markers.suffix)
        elif head.startswith(markers.suffix) and markers.prefix in head:
            suffix, prefix = head.removeprefix(markers.suffix).split(markers.prefix)
        else:
            continue
        if markers is _QWEN and (others := _read_repository(before, prefix + middle, suffix)):
            return others
        return FilledIn(before + prefix + middle, suffix)
    return None


def _read_repository(before: str, prefix: str, suffix: str) -> FilledIn | None:
    """Qwen's repository format: a name, then files, the last of which is the one with the hole."""
    found = re.match(rf"(?:{re.escape(_REPOSITORY)}([^\n]*)\n)?(?={re.escape(_FILE)})", before)
    if not found:
        return None
    *files, last = before[found.end() :].removeprefix(_FILE).split(_FILE)
    snippets = tuple(Snippet(path=path, text=text) for path, _, text in (file.partition("\n") for file in files))
    path, _, begun = last.partition("\n")
    return FilledIn(begun + prefix, suffix, repository=found[1] or "", path=path, snippets=snippets)
