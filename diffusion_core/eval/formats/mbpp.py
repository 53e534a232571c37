"""MBPP (google-research): a function from a sentence and three tests. The sanitised edition's fields are read too."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from diffusion_core.eval.dataset import DatasetError, Row
from diffusion_core.eval.generation import Ask, GenerationOptions, GenerationTask, Question, fit_instruction

# What a model goes on with behind the function; the stop words of the usual zero-shot evaluation.
_BEYOND = re.compile(r"^(?:class |assert |\"\"\"|print\(|if |# ?Test|<)", re.MULTILINE)


def read_mbpp(row: Row, options: GenerationOptions) -> GenerationTask:
    """The task of a row with ``task_id``, ``text`` (or ``prompt``), ``code`` and ``test_list``; instructed by default.

    Raises:
        DatasetError: a field is missing or of another type.
    """
    task_id = row.fields.get("task_id")
    if not isinstance(task_id, int | str):
        raise DatasetError(f"{row.where}: field 'task_id' is missing or no number")
    text = row.text("text" if "text" in row.fields else "prompt").strip()
    tests = read_strings(row, "test_list")
    setup = "\n".join([*_optional_strings(row, "test_imports"), str(row.fields.get("test_setup_code") or "")])
    ask = options.ask or Ask.INSTRUCT
    shown = "\n".join(tests)
    if ask is Ask.INSTRUCT:
        told = f"\n\nThe code must pass these tests; do not repeat them:\n{shown}"
        question = Question(ask=ask, instruction=fit_instruction(text, told))
    else:
        question = Question(ask=ask, prefix=f'"""\n{text}\n{shown}\n"""\n')
    render = partial(_join, setup, "\n".join(tests))
    return GenerationTask(
        task_id=f"MBPP/{task_id}", question=question, render=render, options=options,
        cut=str if ask is Ask.INSTRUCT else cut_function, reference=render(row.text("code")),
    )  # fmt: skip


def cut_function(answer: str) -> str:
    """A completion up to the first line that is no part of a function any more."""
    match = _BEYOND.search(answer)
    return answer[: match.start()] if match else answer


def _join(setup: str, tests: str, answer: str) -> str:
    return f"{setup}\n{answer}\n{tests}\n"


def read_strings(row: Row, name: str) -> list[str]:
    """The field ``name`` as a list of strings.

    Raises:
        DatasetError: it is missing, empty or something else.
    """
    value: Any = row.fields.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise DatasetError(f"{row.where}: field {name!r} is missing or no list of strings")
    return value


def _optional_strings(row: Row, name: str) -> list[str]:
    return read_strings(row, name) if row.fields.get(name) else []
