"""Small evaluation files in the published formats of program-writing benchmarks, written by hand."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any


def humaneval_row(number: int = 0) -> dict[str, Any]:
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def add(a):\n    """ Adds {number}. """\n',
        "entry_point": "add",
        "canonical_solution": f"    return a + {number}\n",
        "test": f"\nMETADATA = {{}}\n\ndef check(candidate):\n    assert candidate(1) == {number + 1}\n",
    }


def mbpp_row(number: int = 1) -> dict[str, Any]:
    return {
        "task_id": number,
        "text": f"Write a function to add {number}.",
        "code": f"def add(a): \r\n  return a + {number}",
        "test_setup_code": "",
        "test_list": [f"assert add(1) == {number + 1}", f"assert add(0) == {number}"],
        "challenge_test_list": [],
    }


def bigcodebench_row(number: int = 0, library: str = "math") -> dict[str, Any]:
    code = f"import {library}\ndef task_func(x):"
    doc = f'{code}\n    """\n    Adds {number}.\n\n    Requirements:\n    - {library}\n    """\n'
    return {
        "task_id": f"BigCodeBench/{number}",
        "complete_prompt": doc,
        "instruct_prompt": f"Adds {number}.\nYou should write self-contained code starting with:\n```\n{code}\n```",
        "canonical_solution": f"    return x + {number}",
        "code_prompt": code,
        "test": (
            "import unittest\nclass TestCases(unittest.TestCase):\n"
            f"    def test_case_1(self):\n        self.assertEqual(task_func(1), {number + 1})\n"
        ),
        "entry_point": "task_func",
        "doc_struct": "{}",
        "libs": f"['{library}']",
    }


def pack_tests(cases: list[dict[str, str]]) -> str:
    """As in the lite editions of LiveCodeBench."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def livecodebench_row(*, functional: bool, packed: bool = False) -> dict[str, Any]:
    kind = "functional" if functional else "stdin"
    public = [
        {
            "input": "[1, 2]\n3" if functional else "2\n1 2\n",
            "output": "[4, 5]" if functional else "3",
            "testtype": kind,
        }
    ]
    private = [
        {"input": "[]\n1" if functional else "1\n0.5\n", "output": "[]" if functional else "0.50", "testtype": kind}
    ]
    return {
        "question_title": "Sum",
        "question_content": "Add up.",
        "platform": "leetcode" if functional else "atcoder",
        "question_id": "1_f" if functional else "1_s",
        "contest_id": "c",
        "contest_date": "2025-02-01T00:00:00",
        "starter_code": "class Solution:\n    def addAll(self, nums: List[int], k: int) -> List[int]:\n        "
        if functional
        else "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": pack_tests(private) if packed else json.dumps(private),
        "metadata": json.dumps({"func_name": "addAll"} if functional else {}),
    }


MBXP_PARTS = {
    "python": (
        'def add(a):\n  """\n  Adds 1.\n  """\n', "  return a + 1\n",
        "\n\nMETADATA = {}\n\ndef check(candidate):\n    assert candidate(1) == 2\n",
    ),
    "javascript": (
        "/**\n * Adds 1 to {a}.\n */\nfunction add(a) {\n", '    return a + 1; // }\n}\nconsole.log("more {")',
        '\n\nconst _ = require("assert");\n_.strictEqual(add(1), 2);\n',
    ),
    "java": (
        "import java.util.*;\n\nclass Add {\n    /** Adds 1. */\n    public static int add(int a) {\n",
        "        return a + 1;\n    }\n}\nclass More {}",
        '\n\nclass Main {\n    public static void main(String[] args) throws Exception {\n'
        '        if (Add.add(1) != 2) { throw new Exception("no"); }\n    }\n}\n',
    ),
    "cpp": (
        "#include <bits/stdc++.h>\nusing namespace std;\n/** Adds 1. */\nint add(int a) {\n", "    return a + 1;\n}",
        "\nint main() {\n    if (add(1) != 2) { return 1; }\n    return 0;\n}\n",
    ),
    "perl": (
        "use strict;\n# Adds {1}.\nsub add {\n    my($a1) = @_;\n", '    return $a1 + 1;\n}\nprint "more";',
        "\nsub testhumaneval {\n    if (add(1) != 2) { exit 1; }\n}\ntesthumaneval();\n",
    ),
    "ruby": ("# Adds 1.\ndef add(a)\n", "  if true\n    a + 1\n  end\nend\nputs 1", "\nraise 'no' if add(1) != 2\n"),
    "scala": (
        "object Main extends App {\n    /** Adds 1. */\n    def add(a : Int) : Int = {\n", "        a + 1\n    }\n}",
        "\n\n    assert(add(1) == 2)\n}\n",
    ),
}  # fmt: skip


def mbxp_row(language: str, number: int = 1) -> dict[str, Any]:
    prompt, _, test = MBXP_PARTS[language]
    return {
        "task_id": f"MB{language[:2].upper()}P/{number}",
        "language": language,
        "prompt": prompt,
        "description": "Adds 1.",
        "test": test,
        "entry_point": "add",
        "canonical_solution": None,
    }


def naturalcodebench_row(number: int = 131, *, java: bool = False, library: str = "string") -> dict[str, Any]:
    language = "java" if java else "python"
    return {
        "_id": number,
        "prompt": (
            f"Your task is to generate {language} code to solve the following problem. The generated code must be "
            f"placed between the ```{language} and ```, and only one code block is allowed: \nWrite `shout`, "
            "not in:\n```javascript\n```\n"
        ),
        "problem": "Write `shout`.",
        "testcases": (
            f"import {library}\n\n\nclass Testshout:\n    def test_basic(self, capfd, tmp_path):\n"
            '        shout("a")\n        assert "A!" in capfd.readouterr().out\n'
        ),
        "setup_code": "",
        "reference_solution": '```python\ndef shout(text):\n    print(text.upper() + "!")\n```',
        "classification": "Algorithm and Data Structure",
    }


def exercism_row(name: str = "add-one", *, number: int = 1) -> dict[str, Any]:
    module = name.replace("-", "_")
    return {
        "task_id": f"exercism/{name}",
        "module": module,
        "instructions": f"# Instructions\n\nAdd {number}.\n",
        "stub": f"def add(a):  # {name}\n    pass\n",
        "test": (
            f"import unittest\n\nfrom {module} import add\n\n\nclass AddTest(unittest.TestCase):\n"
            f"    def test_one(self):\n        self.assertEqual(add(1), {number + 1})\n"
        ),
        "example": f"def add(a):\n    return a + {number}\n",
    }
