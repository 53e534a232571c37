"""BigCodeBench: a function that uses libraries, from its docstring (Complete) or from a description (Instruct).

Format: the data set's card (bigcode/bigcodebench: ``task_id``, ``complete_prompt``, ``instruct_prompt``,
``canonical_solution``, ``code_prompt``, ``test``, ``entry_point``, ``libs``). ``test`` defines the class ``TestCases``
(``bigcodebench/eval/__init__.py``).
"""

from __future__ import annotations

from functools import partial

from diffusion_core.eval.dataset import Row
from diffusion_core.eval.generation import Ask, GenerationOptions, GenerationTask, Question, fit_instruction
from diffusion_core.eval.runners import render_runner


def read_bigcodebench(row: Row, options: GenerationOptions) -> GenerationTask:
    """The task of a row; a completion by default.

    An instructed answer is run behind ``code_prompt`` with an empty body, so that imports that it leaves out are there
    (the benchmark's own calibrated score). An item whose reference does not pass here (a library is missing) is
    unsupported.

    Raises:
        DatasetError: a field is missing or no string.
    """
    complete, code = row.text("complete_prompt"), row.text("code_prompt")
    tests = f"\n{row.text('test')}\n{render_runner('unittest_case', case='TestCases')}"
    ask = options.ask or Ask.COMPLETE
    if ask is Ask.COMPLETE:
        question = Question(ask=ask, prefix=complete, stop_at_scope=True)
        before = complete
    else:
        question = Question(ask=ask, instruction=fit_instruction(row.text("instruct_prompt"), ""))
        before = f"{code}\n    pass\n"
    return GenerationTask(
        task_id=row.text("task_id"), question=question, options=options, render=partial(_join, before, tests),
        reference=_join(complete, tests, row.text("canonical_solution")),
    )  # fmt: skip


def _join(before: str, after: str, answer: str) -> str:
    return f"{before}{answer}{after}"
