"""MBXP (amazon-science/mxeval): MBPP's problems in thirteen languages, as functions to complete.

Format: ``data/mbxp/mb*_release_v1*.jsonl`` (``task_id``, ``language``, ``prompt``, ``description``, ``test``,
``entry_point``, ``canonical_solution``, which may be null). The program is ``prompt + completion + test``; for Python
``check(entry_point)`` is called behind it (``mxeval/execution.py``). multilingual HumanEval has the same format.
"""

from __future__ import annotations

from functools import partial

from diffusion_core.eval.braces import cut_body, cut_ruby
from diffusion_core.eval.dataset import DatasetError, Row
from diffusion_core.eval.generation import Ask, GenerationOptions, GenerationTask, Question, fit_instruction
from diffusion_core.eval.toolchains import TOOLCHAINS, find_missing

INSTRUCTION = "Complete the code: write the body of `{name}` so that it does what its description says."


def read_mbxp(row: Row, options: GenerationOptions) -> GenerationTask:
    """The task of a row, a completion by default; with an obstacle where the language cannot be run here.

    Raises:
        DatasetError: a field is missing or no string, or the language is unknown.
    """
    language, prompt, test = row.text("language").lower(), row.text("prompt"), row.text("test")
    if language != "python" and language not in TOOLCHAINS:
        known = ", ".join(sorted([*TOOLCHAINS, "python"]))
        raise DatasetError(f"{row.where}: language {language!r} is unknown: known are {known}")
    name, ask = row.text("entry_point"), options.ask or Ask.COMPLETE
    if ask is Ask.COMPLETE:
        question = Question(ask=ask, prefix=prompt, language=language, stop_at_scope=language == "python")
        before, cut = prompt, partial(_cut, prompt, test, language)
    else:
        told = INSTRUCTION.format(name=name)
        question = Question(ask=ask, selection=prompt, language=language, instruction=fit_instruction(told, ""))
        before, cut = "", partial(_cut, "", test, language)
    missing = find_missing(language, prompt + test) if language != "python" else ""
    render = partial(_render, before, test, language, name)
    solution = row.fields.get("canonical_solution")
    reference = _render(prompt, test, language, name, solution) if isinstance(solution, str) and not missing else None
    return GenerationTask(
        task_id=row.text("task_id"), question=question, options=options, cut=cut, render=render, reference=reference,
        missing=f"no {missing}" if missing else "", extra=(("language", language),),
    )  # fmt: skip


def _cut(prompt: str, test: str, language: str, answer: str) -> str:
    """An answer without what the model went on with behind it; Python's end is found by its indentation."""
    if language == "python":
        return answer
    return cut_ruby(answer) if language == "ruby" else cut_body(answer, prompt, test, language)


def _render(before: str, test: str, language: str, name: str, answer: str) -> str:
    source = f"{before}{answer}{test}"
    if language == "python":
        return f"{source}\ncheck({name})\n"
    return TOOLCHAINS[language].render_program(source)
