"""LiveCodeBench, code generation: contest problems judged by function values or by standard output.

Format: ``lcb_runner/benchmarks/code_generation.py`` of LiveCodeBench/LiveCodeBench and the card of
livecodebench/code_generation_lite. ``public_test_cases`` and ``metadata`` are JSON texts; ``private_test_cases`` is
JSON text too or, in the lite editions, base64 of zlib of a pickled JSON text. Prompt wording: ``lcb_runner/prompts``.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from functools import partial
from typing import Any, NoReturn

from diffusion_core.eval.dataset import DatasetError, Row
from diffusion_core.eval.generation import Ask, GenerationOptions, GenerationTask, Question, fit_instruction
from diffusion_core.eval.runners import render_runner

SECONDS_PER_TEST = 6.0
_WITH_STARTER = "\n\nUse the starter code and write the whole program that solves the problem, in Python."
_WITH_INPUT = (
    "\n\nWrite a Python program that reads the input from stdin, solves the problem and writes the answer to stdout. "
    "Do not test it on the sample inputs."
)


def read_livecodebench(row: Row, options: GenerationOptions) -> GenerationTask:
    """The task of a row; always instructed: there is no program to complete.

    Raises:
        DatasetError: a field is missing or not in the published format, or a completion was asked for.
    """
    if options.ask is Ask.COMPLETE:
        raise DatasetError(f"{row.where}: LiveCodeBench has nothing to complete: leave out `--ask complete`")
    tests = [*_read_tests(row, "public_test_cases"), *_read_tests(row, "private_test_cases")]
    if not tests:
        raise DatasetError(f"{row.where}: there is no test case")
    starter = row.text("starter_code")
    function = _read_json(row, "metadata", row.text("metadata") or "{}").get("func_name") or ""
    told = _WITH_STARTER if starter.strip() else _WITH_INPUT
    question = Question(
        ask=Ask.INSTRUCT, selection=starter, instruction=fit_instruction(row.text("question_content").strip(), told)
    )
    facts = (("difficulty", row.text("difficulty")), ("platform", row.text("platform")))
    return GenerationTask(
        task_id=f"LiveCodeBench/{row.text('question_id')}", question=question, options=options, extra=facts,
        render=partial(_render, tests, function),
    )  # fmt: skip


def _render(tests: list[tuple[str, str]], function: str, answer: str) -> str:
    return render_runner("contest_tests", solution=answer, tests=tests, function=function, seconds=SECONDS_PER_TEST)


def _read_tests(row: Row, name: str) -> list[tuple[str, str]]:
    text = row.text(name)
    if text and not text.lstrip().startswith("["):
        text = _unpack(row, name, text)
    cases = _read_json(row, name, text or "[]")
    try:
        return [(str(case["input"]), str(case["output"])) for case in cases]
    except (TypeError, KeyError):
        raise DatasetError(f"{row.where}: field {name!r} is no list of cases with input and output") from None


def _read_json(row: Row, name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise DatasetError(f"{row.where}: field {name!r} holds no JSON") from None


def _unpack(row: Row, name: str, text: str) -> str:
    try:
        packed = zlib.decompress(base64.b64decode(text, validate=True))
        value = _TextUnpickler(io.BytesIO(packed)).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
        raise DatasetError(
            f"{row.where}: field {name!r} is neither JSON nor packed test cases ({type(error).__name__}: {error})"
        ) from None
    if not isinstance(value, str):
        raise DatasetError(f"{row.where}: field {name!r} holds {type(value).__name__}, a JSON text is expected")
    return value


class _TextUnpickler(pickle.Unpickler):
    """Reads plain values only: a file of test items must not be able to run anything here."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is no text")
