"""Samples and pass@k, exercises with two tries, whole suites: against a real server process."""

from __future__ import annotations

import json
import math
import signal
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from helpers.answering_engine import EngineServer
from helpers.eval_formats import bigcodebench_row, exercism_row, humaneval_row, mbpp_row, mbxp_row
from helpers.eval_sets import find_real_set, make_edit_item, make_hole, write_set
from helpers.unmask_process import Unmask

from diffusion_core.errors import InvalidRequest
from diffusion_core.eval.dataset import read_dataset
from diffusion_core.eval.exercism import MAX_OUTPUT_CHARACTERS, ExercismOptions, make_exercism
from diffusion_core.eval.report import make_report
from diffusion_core.eval.run import reference_key
from diffusion_core.eval.run_log import describe_command, log_path, read_log
from diffusion_core.eval.samples import derive_seed, estimate_pass_at, pass_at_k, sample_benchmark
from diffusion_core.eval.sandbox import Limits, run_program
from diffusion_core.eval.store import ResultStore
from diffusion_core.requests import MAX_INSTRUCTION_CHARACTERS, SamplingParams

RIGHT = "def add(a):\n    return a + 1\n"
WRONG = "def add(a):\n    return a - 1\n"


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (5, 0, 2), (5, 5, 5), (6, 3, 4), (4, 1, 4)])
def test_pass_at_k_is_the_share_of_choices_with_a_pass(n: int, c: int, k: int) -> None:
    samples = [True] * c + [False] * (n - c)
    choices = list(combinations(samples, k))
    assert math.isclose(pass_at_k(n, c, k), sum(map(any, choices)) / len(choices))


def test_pass_at_k_is_a_mean_over_problems() -> None:
    passed = {"a": [True, False, False], "b": [False, False, False]}
    items = [
        {"task_id": f"{p}#{i}", "problem": p, "passed": s} for p, all_ in passed.items() for i, s in enumerate(all_)
    ]
    assert estimate_pass_at(items) == {"1": round(1 / 6, 4), "2": round(2 / 3 / 2, 4)}
    assert estimate_pass_at([{"task_id": "a", "passed": True}]) == {"1": 1.0}
    assert estimate_pass_at([]) == {}


def test_seeds_depend_on_the_item_and_the_sample_alone(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "a.jsonl", [exercism_row("one"), exercism_row("two")]))
    both = sample_benchmark(
        make_exercism(dataset, ExercismOptions(), None, 0), 3, SamplingParams(temperature=0.5, seed=7)
    )
    seeds = {task.task_id: task.make_request().sampling.seed for task in both.tasks}
    assert len(set(seeds.values())) == 6
    assert seeds["exercism/two#1"] == derive_seed(7, "exercism/two", 1)
    (again,) = [task.retry(WRONG, "no") for task in both.tasks if task.task_id == "exercism/two#1"]
    assert again is not None and again.task_id == "exercism/two/try-2#1"
    assert again.make_request().sampling.seed == seeds["exercism/two#1"]
    with pytest.raises(InvalidRequest, match="at temperature 0 are all the same"):
        sample_benchmark(both, 2, SamplingParams())


def test_samples_give_pass_at_k(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows = [humaneval_row(0), humaneval_row(1)]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json"
    server.script(**{rows[0]["prompt"]: rows[0]["canonical_solution"]})
    options = ("--samples", 3, "--temperature", 0.8, "--top-p", 0.9, "--sample-seed", 4)
    done = unmask.run("eval", "generation", "--data", data, "--json", out, *options)
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert (report["n"], report["passed"], report["pass_at_k"]) == (6, 3, {"1": 0.5, "2": 0.5})
    assert [item["problem"] for item in report["items"]] == ["HumanEval/0"] * 3 + ["HumanEval/1"] * 3
    sampling = [request["sampling"] for request in server.requests]
    assert {(each["temperature"], each["top_p"]) for each in sampling} == {(0.8, 0.9)}
    assert len({each["seed"] for each in sampling}) == 6
    assert "pass@2 0.500" in done.out.decode()
    greedy = unmask.run("eval", "generation", "--data", data, "--samples", 2)
    assert greedy.code == 2 and "temperature" in greedy.err
    other = unmask.run("eval", "generation", "--data", data, "--json", out)
    assert other.code == 1 and "samples was 3, is None" in other.err


def test_a_second_try_sees_the_first_ones_failure(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows = [exercism_row("first"), exercism_row("second"), exercism_row("never")]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json"
    first = "def add(a):  # second\n    return a - 1\n"
    server.script(**{rows[0]["stub"]: RIGHT, rows[1]["stub"]: first, first: RIGHT, rows[2]["stub"]: "def add("})
    done = unmask.run("eval", "exercism", "--data", data, "--json", out)
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert (report["n"], report["passed"]) == (3, 2)
    by_try = report["by_try"]
    assert (by_try["1"]["passed"], by_try["1"]["asked"], by_try["2"]["passed"], by_try["2"]["asked"]) == (1, 3, 2, 2)
    assert [item["passed"] for item in report["items"]] == [True, True, False]
    assert [len(item["tries"]) for item in report["items"]] == [1, 2, 2]
    assert (report["items"][1]["tokens"], report["items"][1]["nfe"], report["items"][1]["ms"]) == (20, 8, 40.0)
    first_request, second_request = (r for r in server.requests if r["selection"] in {rows[1]["stub"], first})
    assert "modify the supplied files: second.py" in first_request["instruction"]
    assert "AssertionError: 0 != 2" in second_request["instruction"]
    assert "Fix the code in second.py" in second_request["instruction"] and "Add 1." in second_request["instruction"]
    broken = next(r for r in server.requests if r["selection"] == "def add(")
    assert "Failed to import test module" in broken["instruction"] and "SyntaxError" in broken["instruction"]
    assert "ARGUMENTS" not in broken["instruction"]
    assert "after try 2" in done.out.decode()


def test_tries_of_samples_are_counted_under_their_exercise(tmp_path: Path) -> None:
    """Two samples, of which one fails twice: one exercise with two samples, not two with one each."""
    dataset = read_dataset(write_set(tmp_path / "a.jsonl", [exercism_row("one")]))
    once = make_exercism(dataset, ExercismOptions(), None, 0)
    benchmark = sample_benchmark(once, 2, SamplingParams(temperature=0.5))
    store = ResultStore(None, {})
    for task in benchmark.tasks:
        program = reference_key(task.render_reference() or "")
        store.add("references", program, {"outcome": "passed", "output": ""})
    second = benchmark.tasks[1].retry(WRONG, "no")
    assert second is not None
    for task, passed in ((benchmark.tasks[0], True), (benchmark.tasks[1], False), (second, False)):
        figures = {"tokens": 1, "nfe": 1, "ms": 1.0, "completion": WRONG}
        store.add("answers", task.task_id, {**task.facts, **figures})
        store.add("verdicts", task.task_id, {"passed": passed, "output": "no", "isolation": None})
    report = make_report(benchmark, store)
    assert [(item["task_id"], item["problem"]) for item in report["items"]] == [
        ("exercism/one#0", "exercism/one"),
        ("exercism/one#1", "exercism/one"),
    ]
    assert report["pass_at_k"] == {"1": 0.5, "2": 1.0}


@pytest.mark.parametrize("asked_before", [1, 4])
def test_stopped_tries_are_taken_up_again(
    unmask: Unmask, server: EngineServer, tmp_path: Path, asked_before: int
) -> None:
    rows = [exercism_row(f"e{number}") for number in range(3)]
    data, out, whole = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json", tmp_path / "whole.json"
    server.script(**{rows[0]["stub"]: RIGHT, rows[1]["stub"]: WRONG, WRONG: RIGHT, "delay_s": 0.3})
    process = unmask.start("eval", "exercism", "--data", data, "--json", out, TMPDIR=str(tmp_path))
    while len(server.requests) < asked_before:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert unmask.run("eval", "exercism", "--data", data, "--json", out).code == 0
    assert len(server.requests) <= 6, "three first tries, two second ones, and the one that was being made"
    assert unmask.run("eval", "exercism", "--data", data, "--json", whole).code == 0
    assert json.loads(out.read_text()) == json.loads(whole.read_text())
    server.forget_requests()
    assert unmask.run("eval", "exercism", "--data", data, "--json", out).code == 0
    assert server.requests == []
    events = [line["event"] for line in read_log(out)]
    assert events == ["begin", "begin", "end", "begin", "end"]


async def test_the_failure_shown_is_bounded_and_the_same_each_time(tmp_path: Path) -> None:
    row = exercism_row("many")
    row["test"] += "".join(f"\n    def test_{n}(self):\n        self.assertEqual(add({n}), -1)\n" for n in range(40))
    (task,) = make_exercism(read_dataset(write_set(tmp_path / "a.jsonl", [row])), ExercismOptions(), None, 0).tasks
    outputs = [(await run_program(task.render_program(WRONG), Limits())).output.strip() for _ in range(2)]
    assert outputs[0] == outputs[1] and "0.0" not in outputs[0]
    assert len(outputs[0].splitlines()) <= 50 and len(outputs[0]) <= MAX_OUTPUT_CHARACTERS
    loud = await run_program(task.render_program(f"print('!' * 9000)\n{WRONG}"), Limits())
    assert loud.output.strip() == outputs[0], "what a solution prints pushes nothing out"
    again = task.retry(WRONG, outputs[0])
    assert again is not None and again.retry(WRONG, outputs[0]) is None
    blank = task.retry("\n", "x")
    assert blank is not None and blank.make_request().selection == row["stub"]


async def test_real_exercises_pass_with_their_examples_and_fit_a_request() -> None:
    dataset = read_dataset(find_real_set("Exercism.dev.jsonl.gz"))
    for task in make_exercism(dataset, ExercismOptions(), 6, 1).tasks:
        assert (await run_program(task.render_reference() or "", Limits(wall_s=30))).passed, task.task_id
    for task in make_exercism(dataset, ExercismOptions(), None, 0).tasks:
        again = task.retry("x = 1\n", "y" * MAX_OUTPUT_CHARACTERS)
        assert again is not None and len(again.make_request().instruction) <= MAX_INSTRUCTION_CHARACTERS


def test_what_cannot_be_run_is_never_a_failure(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [mbxp_row("python", 1), mbxp_row("scala", 2), mbxp_row("scala", 3)]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json"
    server.script(**{rows[0]["prompt"]: "  return a + 1\n"})
    done = unmask.run("eval", "generation", "--data", data, "--json", out, PATH="/nowhere")
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert (report["n"], report["passed"], report["unsupported"]) == (1, 1, 2)
    assert report["not_run"] == {"no scalac": 2}
    assert report["unsupported_items"]["MBSCP/2"] == "not run: no scalac"
    assert len(server.requests) == 1, "the engine is not asked for what cannot be scored"
    assert "2 not run: no scalac" in done.out.decode()
    assert report["by_language"]["python"]["passed"] == 1 and "scala" not in report["by_language"]


def test_a_missing_library_is_unsupported(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows = [bigcodebench_row(1), bigcodebench_row(2, library="no_such_library")]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json"
    server.script(**{rows[0]["complete_prompt"]: "    return x + 1\n"})
    assert unmask.run("eval", "generation", "--data", data, "--json", out, "--workers", 2).code == 0
    report = json.loads(out.read_text())
    assert (report["n"], report["passed"], report["unsupported"]) == (1, 1, 1)
    assert "no_such_library" in report["unsupported_items"]["BigCodeBench/2"] and "not_run" not in report


def write_suite(folder: Path) -> None:
    folder.mkdir()
    write_set(folder / "HumanEval-SingleLineInfilling.dev.jsonl.gz", [make_hole(0), make_hole(1)])
    write_set(folder / "HumanEval.dev.jsonl.gz", [humaneval_row(0)])
    write_set(folder / "MBPP.dev.jsonl.gz", [mbpp_row(1)])
    write_set(folder / "CanItEdit.dev.jsonl.gz", [make_edit_item(1)])
    write_set(folder / "Exercism.dev.jsonl.gz", [exercism_row("a")])


def test_a_suite_runs_every_set_that_is_there(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    write_suite(tmp_path / "data")
    out = tmp_path / "runs"
    command = ("eval", "suite", "--data", tmp_path / "data", "--out", out, "--policies", "verified,autoregressive")
    done = unmask.run(*command)
    assert done.code == 0, done.err
    sets = ["canitedit", "exercism", "humaneval", "humaneval-single-line", "mbpp"]
    names = sorted(f"{name}.{policy}.json" for name in sets for policy in ("verified", "autoregressive"))
    assert sorted(path.name for path in out.glob("*.json")) == names
    asked = [request["decoding"]["policy"] for request in server.requests]
    assert asked == sorted(asked, reverse=True), "one policy after the other"
    report = json.loads((out / "exercism.verified.json").read_text())
    assert (report["benchmark"], report["data"], report["policy"]) == ("exercism", "Exercism.dev.jsonl.gz", "verified")
    server.forget_requests()
    assert unmask.run(*command).code == 0
    assert server.requests == []
    assert unmask.run(*command[:6], "--sets", "mbpp,humanevil").code == 1
    (tmp_path / "data" / "MBPP.test.jsonl").write_text("{}")
    two = unmask.run(*command)
    assert two.code == 1 and "files of one set" in two.err
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = unmask.run("eval", "suite", "--data", empty, "--out", out)
    assert nothing.code == 1 and "no file of any set" in nothing.err


def test_the_log_says_how_results_came_about(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    data, out = write_set(tmp_path / "set.jsonl", [humaneval_row(0)]), tmp_path / "out.json"
    assert unmask.run("eval", "generation", "--data", data, "--json", out).code == 0
    begin, end = read_log(out)
    assert (begin["event"], begin["device"], begin["dtype"], end["event"], end["items"]) == (
        "begin",
        "cpu",
        "float32",
        "end",
        1,
    )
    assert begin["command"].startswith("unmask --url http://127.0.0.1:") and "--token-file ... eval" in begin["command"]
    assert begin["machine"]["cores"] >= 1
    log_path(out).write_text(log_path(out).read_text() + '{"at": "cut sh')
    assert len(read_log(out)) == 2
    assert read_log(tmp_path / "absent.json") == []


def test_a_command_is_told_without_secrets() -> None:
    words = [
        "--url",
        "https://me:secret@host:8/x",
        "--token-file=/home/me/t",
        "eval",
        "--token-file",
        "t",
        "--data",
        "a b",
    ]
    told = describe_command(words)
    assert told == "unmask --url https://host:8/x --token-file=... eval --token-file ... --data 'a b'"


def test_wrong_files_are_refused_before_the_engine_is_asked(
    unmask: Unmask, server: EngineServer, tmp_path: Path
) -> None:
    holes = write_set(tmp_path / "holes.jsonl", [make_hole(0)])
    wrong = unmask.run("eval", "generation", "--data", holes)
    assert wrong.code == 1 and "unmask eval infilling" in wrong.err and "Traceback" not in wrong.err
    wrong = unmask.run("eval", "exercism", "--data", holes)
    assert wrong.code == 1 and "line 1: field 'module' is missing" in wrong.err
    wrong = unmask.run("eval", "generation", "--data", holes, "--format", "mbpp")
    assert wrong.code == 1 and "line 1: " in wrong.err
    assert unmask.run("eval", "generation", "--data", tmp_path / "absent").code == 2
    data = write_set(tmp_path / "set.jsonl", [humaneval_row(0)])
    assert unmask.run("eval", "generation", "--data", data, "--max-tokens", 9000).code == 2
    assert server.requests == []
