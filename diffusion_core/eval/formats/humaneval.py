"""HumanEval (openai/human-eval): the body of a function from its signature and docstring."""

from __future__ import annotations

from functools import partial

from diffusion_core.eval.dataset import DatasetError, Row
from diffusion_core.eval.generation import Ask, GenerationOptions, GenerationTask, Question

INSTRUCTION = "Complete the function `{name}`: write its body so that it does what its docstring says."


def read_humaneval(row: Row, options: GenerationOptions) -> GenerationTask:
    """The task of a row with ``task_id``, ``prompt``, ``entry_point`` and ``test``; a completion by default.

    Raises:
        DatasetError: a field is missing or no string, or the entry point is no name.
    """
    prompt, test, name = row.text("prompt"), row.text("test"), row.text("entry_point")
    if not name.isidentifier():
        raise DatasetError(f"{row.where}: entry_point {name!r} is no name")
    ask = options.ask or Ask.COMPLETE
    tests = f"\n{test}\ncheck({name})\n"
    if ask is Ask.COMPLETE:
        question = Question(ask=ask, prefix=prompt, stop_at_scope=True)
        render = partial(_join, prompt, tests)
    else:
        question = Question(ask=ask, selection=prompt, instruction=INSTRUCTION.format(name=name))
        # Helpers and imports of the prompt stay known where the answer leaves them out.
        render = partial(_join, f"{prompt}    pass\n\n", tests)
    return GenerationTask(task_id=row.text("task_id"), question=question, render=render, options=options)


def _join(before: str, after: str, answer: str) -> str:
    return f"{before}{answer}{after}"
