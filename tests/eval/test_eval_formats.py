"""Published formats of program-writing benchmarks: what is asked, what is scored, what cannot be run here."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.eval_formats import (
    MBXP_PARTS,
    bigcodebench_row,
    humaneval_row,
    livecodebench_row,
    mbpp_row,
    mbxp_row,
    naturalcodebench_row,
    pack_tests,
)
from helpers.eval_sets import find_real_set, make_edit_item, make_hole, write_set

from diffusion_core.eval.dataset import DatasetError, read_dataset
from diffusion_core.eval.formats import make_generation
from diffusion_core.eval.generation import Ask, FormatName, GenerationOptions, cut_fence, fit_instruction
from diffusion_core.eval.sandbox import Limits, run_program
from diffusion_core.eval.tasks import Benchmark, EvalTask
from diffusion_core.eval.toolchains import TOOLCHAINS, Toolchain, find_missing
from diffusion_core.requests import CompletionRequest, EditRequest

LIMITS = Limits(wall_s=60, cpu_s=60)


def load(tmp_path: Path, rows: list[dict[str, Any]], ask: Ask | None = None) -> Benchmark:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows))
    return make_generation(dataset, GenerationOptions(ask=ask), None, 0)


async def passes(task: EvalTask, text: str) -> bool:
    return (await run_program(task.render_program(task.read_answer(text)), LIMITS)).passed


@pytest.mark.parametrize(
    ("row", "name", "ask"),
    [
        (humaneval_row(), FormatName.HUMANEVAL, Ask.COMPLETE),
        (mbpp_row(), FormatName.MBPP, Ask.INSTRUCT),
        (bigcodebench_row(), FormatName.BIGCODEBENCH, Ask.COMPLETE),
        (livecodebench_row(functional=True), FormatName.LIVECODEBENCH, Ask.INSTRUCT),
        (mbxp_row("java"), FormatName.MBXP, Ask.COMPLETE),
        (naturalcodebench_row(), FormatName.NATURALCODEBENCH, Ask.INSTRUCT),
    ],
)
def test_a_format_is_recognised_by_its_fields(tmp_path: Path, row: dict[str, Any], name: FormatName, ask: Ask) -> None:
    benchmark = load(tmp_path, [row])
    assert benchmark.settings == {"format": name.value, "ask": ask.value, "max_tokens": 512}
    request = benchmark.tasks[0].make_request()
    assert isinstance(request, CompletionRequest if ask is Ask.COMPLETE else EditRequest)
    assert request.max_tokens == 512


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (make_hole(0), "unmask eval infilling"),
        (make_edit_item(0), "unmask eval editing"),
        ({"stub": "", "module": "a"}, "unmask eval exercism"),
        ({"question": "?"}, "no known format has the fields question. Known are bigcodebench: "),
        ({**humaneval_row(), "entry_point": "a b"}, "entry_point 'a b' is no name"),
        ({**mbpp_row(), "test_list": "assert True"}, "field 'test_list' is missing or no list of strings"),
        ({**mbpp_row(), "task_id": None}, "field 'task_id' is missing or no number"),
        ({**mbxp_row("java"), "language": "cobol"}, "language 'cobol' is unknown: known are cpp, csharp"),
        ({**livecodebench_row(functional=True), "private_test_cases": "%%"}, "neither JSON nor packed test cases"),
        ({**livecodebench_row(functional=True), "public_test_cases": "[1]"}, "no list of cases with input and output"),
        ({**livecodebench_row(functional=True), "metadata": "{"}, "field 'metadata' holds no JSON"),
        ({**naturalcodebench_row(), "_id": None}, "field '_id' is missing or no number"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match="line 1: ") as caught:
        load(tmp_path, [row])
    assert message in str(caught.value)


def test_packed_test_cases_cannot_run_code(tmp_path: Path) -> None:
    import base64
    import os
    import zlib

    target = tmp_path / "made"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(target),)

    text = base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
    with pytest.raises(DatasetError, match="UnpicklingError"):
        load(tmp_path, [{**livecodebench_row(functional=True), "private_test_cases": text}])
    assert not target.exists()
    with pytest.raises(DatasetError, match="holds list"):
        row = {
            **livecodebench_row(functional=True),
            "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps([]))).decode(),
        }
        load(tmp_path, [row])


async def test_humaneval(tmp_path: Path) -> None:
    (task,) = load(tmp_path, [humaneval_row(2)]).tasks
    request = task.make_request()
    assert isinstance(request, CompletionRequest) and request.stop_at_scope and not request.single_line
    assert request.prefix.endswith('""" Adds 2. """\n')
    assert await passes(task, "    return a + 2\n")
    assert not await passes(task, "    return a + 3\n")
    (task,) = load(tmp_path, [humaneval_row(2)], Ask.INSTRUCT).tasks
    assert task.make_request().selection == humaneval_row(2)["prompt"]
    assert await passes(task, "def add(a):\n    return a + 2\n```\nThis adds 2.")
    assert not await passes(task, "")


async def test_mbpp_in_both_editions(tmp_path: Path) -> None:
    (task,) = load(tmp_path, [mbpp_row(3)]).tasks
    assert task.task_id == "MBPP/3"
    assert "assert add(1) == 4" in task.make_request().instruction
    assert await passes(task, "def add(a):\n    return a + 3\n")
    assert not await passes(task, "def add(a):\n    return 4\n")
    assert (await run_program(task.render_reference() or "", LIMITS)).passed
    sanitised = {**mbpp_row(3), "prompt": "Add.", "test_imports": ["import math"]}
    del sanitised["text"], sanitised["test_setup_code"]
    (task,) = load(tmp_path, [sanitised], Ask.COMPLETE).tasks
    assert task.make_request().prefix.startswith('"""\nAdd.\nassert add(1) == 4')
    assert task.read_answer("def add(a):\n    return a\n\nassert add(1) == 2\n") == "def add(a):\n    return a\n\n"
    assert await passes(task, "def add(a):\n    return math.ceil(a) + 3\nprint(add(5))\n")


async def test_bigcodebench_runs_its_test_cases(tmp_path: Path) -> None:
    rows = [bigcodebench_row(5), bigcodebench_row(6, library="no_such_library")]
    known, unknown = load(tmp_path, rows).tasks
    assert await passes(known, "    return x + 5")
    assert not await passes(known, "    return x")
    assert (await run_program(known.render_reference() or "", LIMITS)).passed
    assert not (await run_program(unknown.render_reference() or "", LIMITS)).passed
    instructed, _ = load(tmp_path, rows, Ask.INSTRUCT).tasks
    assert instructed.make_request().instruction.startswith("Adds 5.\nYou should write")
    # The import is the prompt's: an answer may leave it out.
    assert await passes(instructed, "def task_func(x):\n    return math.floor(x) + 5\n")
    no_tests = {**bigcodebench_row(5), "test": "import unittest\nclass TestCases(unittest.TestCase):\n    pass\n"}
    (task,) = load(tmp_path, [no_tests]).tasks
    assert not await passes(task, "    return x + 5")


@pytest.mark.parametrize("packed", [False, True])
async def test_livecodebench_by_function_and_by_output(tmp_path: Path, packed: bool) -> None:
    rows = [livecodebench_row(functional=True, packed=packed), livecodebench_row(functional=False, packed=packed)]
    function, program = load(tmp_path, rows).tasks
    assert function.facts == {"difficulty": "easy", "platform": "leetcode"}
    assert "starter code" in function.make_request().instruction and "stdin" in program.make_request().instruction
    right = (
        "class Solution:\n    def addAll(self, nums: List[int], k: int) -> List[int]:\n"
        "        return tuple(n + k for n in nums)\n"
    )
    assert await passes(function, right)
    assert not await passes(function, right.replace("n + k", "n"))
    assert not await passes(function, "class Solution:\n    pass\n")
    right = "input()\nprint(sum(map(float, input().split())))\n"
    assert await passes(program, right)
    assert await passes(
        program,
        f"def main():\n    {right.replace(chr(10), chr(10) + '    ')}\nif __name__ == '__main__':\n    main()\n",
    )
    assert not await passes(program, "print(3)\n")
    assert not await passes(program, "import sys\nsys.exit(0)\n")


async def test_livecodebench_bounds_each_test(tmp_path: Path) -> None:
    (task,) = load(tmp_path, [livecodebench_row(functional=True)]).tasks
    endless = "class Solution:\n    def addAll(self, nums, k):\n        while True: pass\n"
    program = task.render_program(endless).replace("'seconds': 6.0", "'seconds': 0.3")
    verdict = await run_program(program, LIMITS)
    assert verdict.outcome == "failed" and "took more than 0.3 seconds" in verdict.output


def test_what_has_nothing_to_complete_says_so(tmp_path: Path) -> None:
    for row in (livecodebench_row(functional=True), naturalcodebench_row()):
        with pytest.raises(DatasetError, match="has nothing to complete"):
            load(tmp_path, [row], Ask.COMPLETE)


@pytest.mark.parametrize("language", [name for name in MBXP_PARTS if name != "python"])
async def test_mbxp_runs_what_is_installed_and_says_what_is_not(tmp_path: Path, language: str) -> None:
    (task,) = load(tmp_path, [mbxp_row(language)]).tasks
    assert task.facts == {"language": language}
    answer = MBXP_PARTS[language][1]
    missing = TOOLCHAINS[language].missing
    assert task.obstacle == (f"no {missing}" if missing else "")
    if missing:
        assert shutil.which(missing) is None
        return
    assert await passes(task, answer)
    assert not await passes(task, answer.replace("+ 1", "+ 2"))
    assert not await passes(task, "syntax error (")


async def test_mbxp_python_calls_the_check(tmp_path: Path) -> None:
    (task,) = load(tmp_path, [mbxp_row("python")]).tasks
    assert task.obstacle == ""
    assert await passes(task, "  return a + 1\n") and not await passes(task, "  return a\n")


def test_an_answer_ends_where_the_tests_expect_it(tmp_path: Path) -> None:
    read = {language: load(tmp_path, [mbxp_row(language)]).tasks[0].read_answer for language in MBXP_PARTS}
    cut = {language: read[language](parts[1]) for language, parts in MBXP_PARTS.items()}
    assert cut["javascript"] == "    return a + 1; // }\n}"
    assert cut["java"].endswith("    }\n}") and "More" not in cut["java"]
    assert cut["perl"].endswith("+ 1;\n}")
    assert cut["ruby"] == "  if true\n    a + 1\n  end\nend"
    # The tests close the object themselves.
    assert cut["scala"] == "        a + 1\n    }"
    assert read["java"]("        return 1;\n") == "        return 1;\n"


def test_a_missing_tool_is_the_first_that_is_missing() -> None:
    chain = Toolchain("a.x", (("sh", "-c", "true"), ("no-such-tool", "a"), ("./a",)))
    assert chain.missing == "no-such-tool"
    assert Toolchain("a.x", (("sh", "-c", "true"), ("./a",))).missing == ""


@pytest.mark.parametrize(
    ("language", "tools", "source", "missing"),
    [
        ("javascript", ["node"], 'const _ = require("no-such-module")', "no-such-module"),
        ("javascript", ["node"], 'const assert = require("assert")', ""),
        ("typescript", ["tsc", "node"], "import * as m from 'no-such-module'", "no-such-module"),
        ("perl", ["perl"], "use strict;\nuse No::Such;\nuse List::Util;", "No::Such"),
        ("perl", ["perl"], "use List::Util qw(sum);", ""),
        ("go", ["go"], 'import (\n\t"fmt"\n\tx "example.com/x/y"\n)', "example.com/x/y"),
        ("go", ["go"], 'import (\n\t"encoding/json"\n)\nvar s = "a.b/c"', ""),
        ("csharp", ["mcs", "mono"], "using System.Linq;\nusing Kellerman.Compare;", "Kellerman.Compare"),
        ("csharp", ["mcs"], "using System;", "mono"),
        ("java", ["javac", "java"], "import java.util.*;", ""),
    ],
)
def test_a_module_that_the_tests_need_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, tools: list[str], source: str, missing: str
) -> None:
    for tool in tools:
        real = shutil.which(tool)
        if real is None and tool in {"node", "perl"}:
            pytest.skip(f"{tool} is not installed")
        if real is None:
            (tmp_path / tool).write_text("#!/bin/sh\n")
            (tmp_path / tool).chmod(0o755)
        else:
            (tmp_path / tool).symlink_to(real)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_missing(language, source) == missing


async def test_naturalcodebench_by_pytest(tmp_path: Path) -> None:
    rows = [
        naturalcodebench_row(1),
        naturalcodebench_row(2, library="no_such_library"),
        naturalcodebench_row(3, java=True),
    ]
    task, unknown, java = load(tmp_path, rows).tasks
    assert (task.task_id, java.obstacle, task.obstacle) == ("NaturalCodeBench/python/1", "no JUnit", "")
    assert (await run_program(task.render_reference() or "", LIMITS)).passed
    assert not (await run_program(unknown.render_reference() or "", LIMITS)).passed
    assert not await passes(task, "def shout(text):\n    print(text)\n")
    assert java.make_request().language == "java"
    chinese = {**naturalcodebench_row(3, java=True), "prompt": "生成的代码必须位于代码块```java和```之间：\n..."}
    assert load(tmp_path, [chinese]).tasks[0].obstacle == "no JUnit"


def test_an_instruction_is_cut_in_its_middle_part() -> None:
    assert fit_instruction("abc", "def", 6) == "abcdef"
    cut = fit_instruction("a" * 100, "end", 40)
    assert len(cut) == 40 and cut.endswith("\n[...]\nend")


def test_an_instructed_answer_ends_at_a_closing_fence() -> None:
    assert cut_fence("x = 1\n```\nThis sets x.\n") == "x = 1\n"
    assert cut_fence('x = "```"\ny = 2\n') == 'x = "```"\ny = 2\n'
    assert cut_fence("```") == ""


async def test_references_of_the_real_sets_pass() -> None:
    mbpp = make_generation(read_dataset(find_real_set("MBPP.dev.jsonl.gz")), GenerationOptions(), 8, 2)
    for task in mbpp.tasks:
        assert (await run_program(task.render_reference() or "", LIMITS)).passed, task.task_id
    dataset = read_dataset(find_real_set("HumanEval.dev.jsonl.gz"))
    solutions = {row.text("task_id"): row.text("canonical_solution") for row in dataset.rows}
    for task in make_generation(dataset, GenerationOptions(), 8, 2).tasks:
        assert await passes(task, solutions[task.task_id])
        assert not await passes(task, "    raise ValueError\n")


def test_packing_is_what_the_lite_editions_have() -> None:
    assert pack_tests([]).startswith("eJ")  # zlib's header in base64
