"""`unmask eval` against a real server process: results, resuming, errors."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.answering_engine import EngineServer
from helpers.eval_sets import make_edit_item, make_hole, write_set
from helpers.unmask_process import Unmask

CONTRACT = {
    "benchmark", "n", "passed", "pass_at_1", "unsupported", "tokens_per_forward", "tokens_per_second", "model",
    "policy", "items",
}  # fmt: skip
ITEM_CONTRACT = {"task_id", "passed", "completion", "nfe", "tokens", "ms"}


def script_holes(server: EngineServer, rows: list[dict[str, str]], **more: Any) -> None:
    """Right answers to all even items."""
    answers = {row["prompt"]: row["canonical_solution"] for row in rows[::2]}
    server.script(**answers, **more)


def test_infilling_gives_the_json_of_the_contract(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows = [make_hole(number) for number in range(5)]
    data, out = write_set(tmp_path / "set.jsonl.gz", rows), tmp_path / "out.json"
    script_holes(server, rows)
    done = unmask.run("eval", "infilling", "--data", data, "--json", out)
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert report.keys() >= CONTRACT
    assert (report["benchmark"], report["n"], report["passed"], report["unsupported"]) == ("infilling", 5, 3, 0)
    assert (report["pass_at_1"], report["tokens_per_forward"], report["tokens_per_second"]) == (0.6, 2.5, 500.0)
    assert (report["model"], report["policy"]) == ("scripted-model", "verified")
    assert [item["task_id"] for item in report["items"]] == [row["task_id"] for row in rows]
    assert all(item.keys() >= ITEM_CONTRACT for item in report["items"])
    assert [item["passed"] for item in report["items"]] == [True, False, True, False, True]
    assert report["items"][0]["completion"] == "    x = a + 0\n"
    table = done.out.decode()
    assert "0.600" in table and "scripted-model" in table and "sandbox" in table
    assert all(request["single_line"] for request in server.requests)
    assert list(tmp_path.glob("*.partial.jsonl")) == []


def test_editing_counts_unsupported_items_apart(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows = [make_edit_item(1), make_edit_item(2), make_edit_item(3, library="no_such_library")]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json"
    server.script(**{rows[0]["before"]: rows[0]["after"]})
    done = unmask.run("eval", "editing", "--data", data, "--json", out, "--policy", "autoregressive")
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert (report["n"], report["passed"], report["unsupported"], report["pass_at_1"]) == (4, 2, 2, 0.5)
    assert report["by_kind"]["lazy"]["n"] == report["by_kind"]["descriptive"]["n"] == 2
    assert report["small_changes"]["n"] == 4
    assert report["unsupported_items"].keys() == {"3_constant/descriptive", "3_constant/lazy"}
    assert "no_such_library" in report["unsupported_items"]["3_constant/lazy"]
    assert {request["instruction"] for request in server.requests} == {"Set VALUE to 1.", "Set VALUE to 2.", "set it"}
    assert len(server.requests) == 4 and server.requests[0]["decoding"]["policy"] == "autoregressive"
    one_kind = unmask.run("eval", "editing", "--data", data, "--kind", "lazy")
    assert one_kind.code == 0 and len(server.requests) == 6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_is_taken_up_again(
    unmask: Unmask, server: EngineServer, tmp_path: Path, number: signal.Signals
) -> None:
    rows = [make_hole(index) for index in range(6)]
    data, out, whole = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json", tmp_path / "whole.json"
    script_holes(server, rows, delay_s=0.25)
    process = unmask.start("eval", "infilling", "--data", data, "--json", out, TMPDIR=str(tmp_path))
    while len(server.requests) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == (130 if number is signal.SIGINT else -9)
    assert not out.exists()
    partial = tmp_path / "out.json.partial.jsonl"
    with partial.open("a") as stream:
        stream.write('{"about": "answers", "key": "Hole/')  # as if killed in the middle of a line
    assert unmask.run("eval", "infilling", "--data", data, "--json", out).code == 0
    asked = [request["prefix"] for request in server.requests]
    in_flight = 1  # the answer that was being made is asked for again, no other
    assert len(asked) <= len(rows) + in_flight
    assert all(asked.count(row["prompt"]) == 1 for row in rows[:3])
    assert unmask.run("eval", "infilling", "--data", data, "--json", whole).code == 0
    assert json.loads(out.read_text()) == json.loads(whole.read_text())
    assert not partial.exists()
    server.forget_requests()
    assert unmask.run("eval", "infilling", "--data", data, "--json", out).code == 0
    assert server.requests == []


def test_a_larger_sample_takes_over_a_smaller_one(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows = [make_hole(index) for index in range(4)]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json"
    arguments = ("eval", "infilling", "--data", data, "--json", out)
    assert unmask.run(*arguments, "--limit", 2).code == 0
    assert unmask.run(*arguments).code == 0
    assert len(server.requests) == 4
    content = out.read_text()
    smaller = unmask.run(*arguments, "--limit", 2)
    assert smaller.code == 1 and "2 results outside this selection" in smaller.err
    assert out.read_text() == content


def test_results_of_other_settings_are_not_mixed(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    data, out = write_set(tmp_path / "set.jsonl", [make_hole(0)]), tmp_path / "out.json"
    arguments = ("eval", "infilling", "--data", data, "--json", out)
    assert unmask.run(*arguments).code == 0
    other = unmask.run(*arguments, "--policy", "autoregressive")
    assert other.code == 1 and "policy was 'auto', is 'autoregressive'" in other.err
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert unmask.run(*arguments, "--policy", "autoregressive", "--overwrite").code == 0
    assert json.loads(out.read_text())["policy"] == "autoregressive"
    out.write_text("my notes")
    foreign = unmask.run(*arguments)
    assert foreign.code == 1 and "--overwrite" in foreign.err and out.read_text() == "my notes"


def test_another_model_in_the_middle_is_noticed(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows = [make_hole(index) for index in range(2)]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json"
    arguments = ("eval", "infilling", "--data", data, "--json", out)
    server.script(**{rows[1]["prompt"]: {"error": "engine"}})
    failed = unmask.run(*arguments)
    assert failed.code == 1 and failed.err.endswith("error: scripted engine\n")
    assert "results so far are kept" in failed.err
    server.script(model="another-model")
    changed = unmask.run(*arguments)
    assert changed.code == 1 and "another-model" in changed.err and "scripted-model" in changed.err


def test_two_runs_do_not_write_one_file(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows = [make_hole(index) for index in range(3)]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json"
    server.script(delay_s=0.5)
    first = unmask.start("eval", "infilling", "--data", data, "--json", out)
    while not server.requests:
        assert first.poll() is None
        time.sleep(0.02)
    second = unmask.run("eval", "infilling", "--data", data, "--json", out)
    assert second.code == 1 and "another run" in second.err
    first.communicate(timeout=30)
    assert first.returncode == 0


def test_an_item_too_long_for_the_model_fails_alone(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows = [make_hole(index) for index in range(3)]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "out.json"
    script_holes(server, rows, **{rows[1]["prompt"]: {"error": "context_too_long"}})
    assert unmask.run("eval", "infilling", "--data", data, "--json", out).code == 0
    report = json.loads(out.read_text())
    assert (report["n"], report["passed"], report["errors"]) == (3, 2, 1)
    assert report["items"][1]["error"] == "context_too_long: scripted context_too_long"


def test_a_busy_engine_is_asked_again(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    row = make_hole(0)
    data = write_set(tmp_path / "set.jsonl", [row])
    server.script(**{row["prompt"]: {"error": "overloaded"}})
    process = unmask.start("eval", "infilling", "--data", data, "--json", tmp_path / "out.json")
    while not server.requests:
        assert process.poll() is None
        time.sleep(0.02)
    server.script(**{row["prompt"]: row["canonical_solution"]})
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads((tmp_path / "out.json").read_text())["passed"] == 1


def test_bad_files(unmask: Unmask, tmp_path: Path) -> None:
    assert unmask.run("eval", "infilling", "--data", tmp_path / "absent", "--json", tmp_path / "o").code == 2
    (tmp_path / "bad.jsonl").write_text(json.dumps(make_hole(0)) + "\n{\n")
    bad = unmask.run("eval", "infilling", "--data", tmp_path / "bad.jsonl", "--json", tmp_path / "o")
    assert bad.code == 1 and "bad.jsonl, line 2: is no JSON" in bad.err and "Traceback" not in bad.err
    data = write_set(tmp_path / "set.jsonl", [make_hole(0)])
    nowhere = unmask.run("eval", "infilling", "--data", data, "--json", tmp_path / "absent" / "o")
    assert nowhere.code == 1 and "cannot be written" in nowhere.err


def test_bench_decode_measures_policies_in_turns(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [make_hole(0), make_hole(1), make_edit_item(2)]
    data, out = write_set(tmp_path / "set.jsonl", rows), tmp_path / "bench.json"
    done = unmask.run(
        "bench", "decode", "--data", data, "--limit", 3, "--policies", "autoregressive,verified", "--json", out
    )
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert (report["benchmark"], report["n"], report["same_text"], report["device"]) == ("decode", 3, 3, "cpu")
    row = report["policies"]["verified"]
    assert (row["requests"], row["tokens_per_forward"], row["p50_ms"], row["p95_ms"]) == (3, 2.5, 20.0, 20.0)
    assert (row["tokens_per_second"], row["forwards_per_second"]) == (666.6667, 266.6667)
    assert row["ms_per_forward"] == 3.75
    assert row["limit_ms_per_forward"] is row["times_limit"] is None, "the memory of a remote engine is not known"
    asked = [request["decoding"]["policy"] for request in server.requests]
    turns = ["autoregressive", "verified", "verified", "autoregressive", "autoregressive", "verified"]
    assert asked == ["autoregressive", "verified", *turns]
    assert "tokens/forward" in done.out.decode()
    assert unmask.run("bench", "decode", "--data", data, "--policies", "best").code == 2
    assert unmask.run("bench", "decode", "--data", data, "--policies", "verified,verified").code == 2
