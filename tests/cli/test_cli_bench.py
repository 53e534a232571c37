"""`unmask bench` with real engines and servers around tiny random models, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.answering_engine import EngineServer
from helpers.eval_sets import make_hole, write_set
from helpers.tiny_models import save_tiny_checkpoint
from helpers.unmask_process import Unmask
from matplotlib.image import imread

MACHINE = {"cpu", "cores", "memory_gib", "system", "python", "torch", "unmask", "load_average"}
LATENCY = ("bench", "latency", "--contexts", "40,160", "--keys", 3, "--rounds", 2, "--rows", "1,4", "--max-tokens", 5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def alone(tmp_path: Path) -> Unmask:
    """The command line without any server."""
    folder = tmp_path / "alone"
    folder.mkdir()
    return Unmask(folder)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set.jsonl.gz", [make_hole(number) for number in range(6)])


def check_picture(path: Path) -> None:
    """A PNG of some size with more in it than one colour."""
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = imread(path)
    assert pixels.shape[0] > 300 and pixels.shape[1] > 600
    assert len({tuple(pixel) for pixel in pixels[::3, ::3].reshape(-1, pixels.shape[2]).tolist()}) > 20


def check_limit(row: dict[str, Any], report: dict[str, Any]) -> None:
    """The limit is the bytes of the weights over the bandwidth, and the ratio is that of the two times."""
    (model,) = report["machine"]["engine"]["models"].values()
    gigabytes = max(report["machine"]["bandwidth"].values())
    assert row["limit_ms_per_forward"] == pytest.approx(model["bytes_per_forward"] / gigabytes / 1e6, rel=1e-2)
    assert row["times_limit"] == pytest.approx(row["ms_per_forward"] / row["limit_ms_per_forward"], rel=1e-2)
    assert row["times_limit"] > 1, "nothing is faster than its memory"


def test_decode_measures_an_engine_of_its_own_beside_the_limit(
    alone: Unmask, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    done = alone.run(
        "bench", "decode", "--data", data, "--limit", 2, "--model", checkpoint, "--max-tokens", 9, "--json", out,
        "--plot", plot,
    )  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert (report["n"], report["same_text"], report["model"]) == (2, 2, str(checkpoint))
    assert report["machine"].keys() == MACHINE | {"engine", "bandwidth"}
    for name, row in report["policies"].items():
        assert (row["policy"], row["requests"]) == (name, 2)
        assert 0 < row["tokens"] <= 18 and 0 < row["nfe"] <= row["tokens"]
        assert row["tokens_per_forward"] == pytest.approx(row["tokens"] / row["nfe"], abs=1e-4)
        assert row["tokens_per_second"] / row["forwards_per_second"] == pytest.approx(row["tokens_per_forward"], 1e-3)
        assert row["ms_per_forward"] == pytest.approx(1000 / row["forwards_per_second"], 1e-3)
        assert row["p50_ms"] <= row["p95_ms"]
        check_limit(row, report)
    assert report["policies"]["autoregressive"]["tokens_per_forward"] == 1
    assert "x limit" in done.out.decode() and "GB/s" in done.out.decode()
    assert not list(alone.folder.glob("state/engine*")), "no shared engine was started"
    check_picture(plot)


def test_latency_over_contexts_and_rows(alone: Unmask, checkpoint: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    done = alone.run(*LATENCY, "--model", checkpoint, "--json", out, "--plot", plot)
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert (report["benchmark"], report["model"], report["max_tokens"]) == ("latency", str(checkpoint), 5)
    short, long = report["contexts"]
    assert (short["context_tokens"], long["context_tokens"]) == (40, 160)
    assert long["prompt_tokens"] - short["prompt_tokens"] >= 120
    for row in (short, long):
        cold, key = row["cold"], row["keystroke"]
        assert (cold["requests"], key["requests"]) == (2, 6)
        assert cold["computed_tokens"] >= row["context_tokens"] - 12, "a cold prompt is computed, not remembered"
        assert cold["prefill_tokens_per_second"] > 0 and cold["prefill_ms"] <= cold["p50_ms"]
        assert key["computed_tokens"] == 1, "a typed character is one token of this tokenizer"
        assert key["tokens"] == 5 and 1 <= key["forwards"] <= 5
        assert 0 < key["p50_ms"] <= key["p95_ms"]
    assert [row["rows"] for row in report["forwards"]] == [1, 4]
    for row in report["forwards"]:
        assert row["forwards"] == 20
        check_limit(row, report)
    assert "ms/forward" in done.out.decode()
    check_picture(plot)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--contexts", "40,9000"), 1, "at most 3"),  # the tiny model reads 4096
        (("--contexts", "none"), 2, "separated by commas"),
        (("--rows", "0,4"), 2, "separated by commas"),
        (("--source", __file__, "--contexts", "3900"), 0, ""),
        (("--url", "http://127.0.0.1:9"), 2, "--url"),
    ],
)
def test_latency_with_other_numbers(
    alone: Unmask, checkpoint: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    before = arguments[:2] if arguments[0] == "--url" else ()
    done = alone.run(*before, *LATENCY, "--keys", 1, "--rounds", 1, "--model", checkpoint, *arguments[len(before) :])
    assert (done.code, "Traceback" in done.err) == (code, False), done.err
    assert words in " ".join(done.err.replace("│", "").split())


def test_a_source_that_is_too_short(alone: Unmask, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text("x = 1\n" * 20)
    done = alone.run(*LATENCY, "--model", checkpoint, "--source", tmp_path / "short.py")
    assert done.code == 1 and "the source has only 120 tokens" in done.err


def test_serve_loads_a_server_of_its_own_and_stops_it(
    alone: Unmask, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    done = alone.run(
        "bench", "serve", "--data", data, "--model", checkpoint, "--users", "2,1", "--requests", 2, "--max-tokens", 6,
        "--json", out, "--plot", plot,
    )  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert (report["own_server"], report["model"], report["n"]) == (True, str(checkpoint), 6)
    assert [level["users"] for level in report["levels"]] == [1, 2]
    assert report["start_to_first_answer_ms"] > 100, "a process with torch in it starts no faster"
    for level in report["levels"]:
        assert level["requests"] == level["answered"] == 2 * level["users"]
        assert level["errors"] == {} and level["tokens"] == 6 * level["requests"]
        assert level["tokens_per_second"] == pytest.approx(level["tokens"] / level["seconds"], rel=1e-2)
        assert level["tokens_per_forward"] == pytest.approx(level["tokens"] / level["nfe"], abs=1e-4)
        assert 0 < level["p50_ms"] <= level["p95_ms"] <= 1000 * level["seconds"]
    check_picture(plot)
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if any("unmask-bench-" in part for part in command)]


def test_serve_counts_what_a_running_server_refuses(
    unmask: Unmask, server: EngineServer, data: Path, tmp_path: Path
) -> None:
    rows = [make_hole(number) for number in range(6)]
    server.script(**{rows[1]["prompt"]: {"error": "overloaded"}, rows[3]["prompt"]: {"error": "engine"}})
    out = tmp_path / "out.json"
    arguments = ("bench", "serve", "--data", data, "--users", 1, "--json", out)
    done = unmask.run(*arguments, "--requests", 5)
    assert done.code == 0, done.err
    report = json.loads(out.read_text())
    assert (report["own_server"], report["start_to_first_answer_ms"]) == (False, None)
    (level,) = report["levels"]
    assert level["errors"] == {"engine": 1, "overloaded": 1}
    assert (level["requests"], level["answered"], level["tokens"]) == (5, 3, 30)
    assert level["reused_share"] == pytest.approx(2 / 3, abs=1e-4)
    assert "1 overloaded" in done.out.decode()
    server.script(**{row["prompt"]: {"error": "engine"} for row in rows[:5]})
    failed = unmask.run(*arguments, "--requests", 5)
    assert failed.code == 1 and "no request was answered" in failed.err
    assert json.loads(out.read_text())["levels"][0]["errors"] == {"engine": 5}


def test_users_do_not_wait_for_each_other(unmask: Unmask, server: EngineServer, data: Path, tmp_path: Path) -> None:
    server.script(delay_s=1.0)
    out = tmp_path / "out.json"
    done = unmask.run("bench", "serve", "--data", data, "--users", "1,5", "--requests", 1, "--json", out)
    assert done.code == 0, done.err
    one, five = json.loads(out.read_text())["levels"]
    assert one["seconds"] >= 1.0
    assert five["seconds"] < 5 * 1.0, "one after the other they would take as long"
    prompts = [request["prefix"] for request in server.requests[1:]]
    assert len(prompts) == len(set(prompts)) == 6, "no prompt is used twice while there are others"


def test_serve_loads_no_other_machine_by_accident(unmask: Unmask, data: Path) -> None:
    arguments = ("bench", "serve", "--data", data, "--users", 1, "--requests", 1)
    far = unmask.run(*arguments, "--url", "http://192.0.2.1:8712")
    assert far.code == 1 and "--allow-remote" in far.err
    nobody = unmask.run(*arguments, "--url", "http://127.0.0.1:9")
    assert nobody.code == 1 and "127.0.0.1:9" in nobody.err and "Traceback" not in nobody.err
    nothing = unmask.run(*arguments, "--url", "http://")
    assert nothing.code == 1 and "http://host:port" in nothing.err


@pytest.mark.parametrize("command", ["decode", "latency", "serve"])
def test_what_is_missing_is_named_before_anything_is_measured(
    alone: Unmask, data: Path, tmp_path: Path, command: str
) -> None:
    arguments = ("bench", command) if command == "latency" else ("bench", command, "--data", data)
    absent = alone.run(*arguments)
    assert absent.code == 1 and "unmask pull qwen2.5-coder-0.5b" in absent.err
    unknown = alone.run(*arguments, "--model", "no-such-model")
    assert unknown.code == 1 and "no-such-model" in unknown.err
    text = alone.run(*arguments, "--plot", tmp_path / "plot.txt")
    assert text.code == 1 and "must end with .png" in text.err
    nowhere = alone.run(*arguments, "--json", tmp_path / "absent" / "out.json")
    assert nowhere.code == 1 and "does not exist" in nowhere.err
    if command != "latency":
        assert alone.run("bench", command, "--data", tmp_path / "absent.jsonl").code == 2


@pytest.mark.parametrize("command", ["decode", "latency", "serve"])
def test_a_model_that_cannot_be_loaded_ends_the_measurement(
    alone: Unmask, checkpoint: Path, data: Path, tmp_path: Path, command: str
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    with (damaged / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    arguments = ("bench", command) if command == "latency" else ("bench", command, "--data", data)
    failed = alone.run(*arguments, "--model", damaged)
    assert failed.code == 1 and "model.safetensors" in failed.err and "Traceback" not in failed.err


def test_a_plot_without_matplotlib(alone: Unmask, data: Path, tmp_path: Path) -> None:
    (alone.folder / "matplotlib.py").write_text("raise ImportError('not installed')\n")
    paths = os.pathsep.join([str(alone.folder), *filter(None, sys.path)])
    process = alone.start("bench", "decode", "--data", data, "--plot", tmp_path / "out.png", PYTHONPATH=paths)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and b"pip install matplotlib" in err
