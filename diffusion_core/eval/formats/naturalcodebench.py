"""NaturalCodeBench (THUDM): problems from users' questions, in Python (scored by pytest) and Java (by JUnit).

Format: ``problems/**/ncb_{python,java}_{en,zh}.jsonl`` (``_id``, ``prompt``, ``problem``, ``testcases``,
``setup_code``, ``reference_solution``, ``classification``). Files of a problem are laid out as in
``ncb/test_setup.py``. Java needs JUnit, which does not come with Unmask: those items are counted as not run.
"""

from __future__ import annotations

import re
from functools import partial

from diffusion_core.eval.dataset import DatasetError, Row
from diffusion_core.eval.generation import Ask, GenerationOptions, GenerationTask, Question, fit_instruction
from diffusion_core.eval.runners import render_runner

# Standard input as the benchmark gives it: a program that reads from it must not wait.
_PRELUDE = (
    "import pytest\nimport sys\nwith open('stdin.txt', 'w') as f:\n    f.write('1\\n' * 1000)\n"
    "sys.stdin = open('stdin.txt')\n"
)
_LANGUAGE = re.compile(r"```(python|java)(?![a-z])", re.IGNORECASE)
_FENCED = re.compile(r"```[a-zA-Z]*\n(.*?)\n?```", re.DOTALL)


def read_naturalcodebench(row: Row, options: GenerationOptions) -> GenerationTask:
    """The task of a row; always instructed, with the benchmark's own prompt.

    Raises:
        DatasetError: a field is missing or of another type, or a completion was asked for.
    """
    if options.ask is Ask.COMPLETE:
        raise DatasetError(f"{row.where}: NaturalCodeBench has nothing to complete: leave out `--ask complete`")
    number = row.fields.get("_id")
    if not isinstance(number, int | str):
        raise DatasetError(f"{row.where}: field '_id' is missing or no number")
    prompt = row.text("prompt")
    named = _LANGUAGE.search(prompt)  # the prompt begins with the fence that the answer shall stand in
    language = named.group(1).lower() if named else "python"
    question = Question(ask=Ask.INSTRUCT, language=language, instruction=fit_instruction(prompt.strip(), ""))
    render = partial(_render, f"python_{number}", row.text("testcases"), row.text("setup_code"))
    fenced = _FENCED.search(row.text("reference_solution"))
    solution = fenced.group(1) if fenced else row.text("reference_solution")
    java = language == "java"
    return GenerationTask(
        task_id=f"NaturalCodeBench/{language}/{number}", question=question, options=options, render=render,
        reference=None if java else render(solution), missing="no JUnit" if java else "",
        extra=(("language", language), ("classification", row.text("classification"))),
    )  # fmt: skip


def _render(name: str, tests: str, setup: str, answer: str) -> str:
    files = {
        f"{name}.py": f"{_PRELUDE}import pytest\n{answer}\n",
        f"test_{name}.py": f"import pytest\nfrom {name} import *\n{tests}\n{setup}",
    }
    return render_runner("pytest_files", files=files, test=f"test_{name}.py")
