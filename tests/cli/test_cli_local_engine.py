"""The command line with the real engine and a tiny random model: started by itself, and as `unmask serve`."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers.eval_sets import make_hole, write_set
from helpers.tiny_models import save_tiny_checkpoint
from helpers.unmask_process import Unmask

POSITION = ("--line", 1, "--character", 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Unmask]:
    """The command line whose local engine is stopped at the end."""
    unmask = Unmask(tmp_path_factory.mktemp("local"))
    yield unmask
    stopped = unmask.run("stop", "--json")
    assert (stopped.code, stopped.json) == (0, {"stopped": 1})
    assert unmask.run("status", "--json").json["status"] == "stopped"
    assert unmask.run("stop").out.decode().strip() == "No local engine was running."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "program.py"
    file.write_bytes(b"def f(a):\r\n    return a\r\n\r\nf(1)\r\n")
    return file


def test_a_local_engine_starts_answers_and_stays(local: Unmask, checkpoint: Path, path: Path) -> None:
    arguments = ("complete", path, *POSITION, "--model", checkpoint, "--max-tokens", 12, "--json")
    first = local.run(*arguments)
    assert first.code == 0, first.err
    assert (first.json["model"], first.json["policy"]) == (str(checkpoint), "verified")
    assert 0 < first.json["tokens"] <= 12 and first.json["nfe"] > 0
    assert first.json["timings_ms"]["total"] > 0
    assert first.json["reused_tokens"] == 0
    second = local.run(*arguments)
    assert second.json["text"] == first.json["text"]
    assert second.json["reused_tokens"] > 0.8 * second.json["prompt_tokens"]
    plain = local.run(*arguments, "--policy", "autoregressive")
    assert (plain.json["text"], plain.json["policy"]) == (first.json["text"], "autoregressive")
    status = local.run("status", "--json")
    assert (status.json["status"], status.json["num_completed"]) == ("ready", 3)


def test_an_edit_and_what_the_checkpoint_cannot_do(local: Unmask, checkpoint: Path, path: Path) -> None:
    lines = ("--start-line", 0, "--end-line", 1, "--instruction", "say hello", "--model", checkpoint)
    edited = local.run("edit", path, *lines, "--max-tokens", 8, "--json")
    assert edited.code == 0, edited.err
    assert edited.json["text"].endswith("\r\n")
    confident = local.run("complete", path, *POSITION, "--model", checkpoint, "--policy", "confidence")
    assert confident.code == 1 and confident.err.startswith("error: policy confidence")


def test_an_evaluation_of_a_random_model_passes_nothing(local: Unmask, checkpoint: Path, tmp_path: Path) -> None:
    data = write_set(tmp_path / "set.jsonl", [make_hole(0), make_hole(1)])
    done = local.run(
        "eval", "infilling", "--data", data, "--model", checkpoint, "--max-tokens", 8, "--json", tmp_path / "o.json"
    )
    assert done.code == 0, done.err
    assert b"0.000" in done.out
    bench = local.run("bench", "decode", "--data", data, "--model", checkpoint, "--max-tokens", 8)
    assert bench.code == 0, bench.err
    assert b"same text on 2 of 2" in bench.out


def test_status_tells_how_the_engine_decodes_and_no_code(local: Unmask, checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "secret.py"
    file.write_text("canary_4711 = 1\n" * 9)
    arguments = ("complete", file, "--line", 8, "--character", 0, "--model", checkpoint, "--max-tokens", 24, "--json")
    assert local.run(*arguments).code == 0
    give_up = time.monotonic() + 30
    while not (reports := local.run("status", "--json").json["decoding"]) or not reports[0]["costs"]:
        assert time.monotonic() < give_up, "the model was not measured"
    assert local.run(*arguments).code == 0
    status = local.run("status", "--json").json
    report = status["decoding"][0]
    assert report["model"] == str(checkpoint)
    assert report["num_threads"] >= 1
    assert [cost["rows"] for cost in report["costs"]] == [1, 2, 4, 8, 16, 32, 64]
    assert all(cost["body_ms"] > 0 and cost["head_ms"] > 0 for cost in report["costs"])
    assert report["tokens_per_forward"] == report["num_tokens"] / report["num_rounds"] >= 1
    lookup = next(draft for draft in report["drafts"] if draft["source"] == "lookup")
    assert lookup["num_accepted"] <= lookup["num_drafted"]
    assert all(0 <= rate <= 1 for rate in lookup["acceptance"])
    shown = local.run("status").out.decode()
    for text in ("milliseconds per forward", "tokens per forward", "threads", "lookup", "layers", "output head"):
        assert text in shown
    assert "canary" not in shown and "canary" not in str(status)
    remembered = (local.folder / "state" / "costs.json").read_text()
    assert str(checkpoint) in remembered and "canary" not in remembered


def test_an_idle_engine_process_uses_no_processor(local: Unmask, checkpoint: Path, path: Path) -> None:
    assert local.run("complete", path, *POSITION, "--model", checkpoint, "--max-tokens", 4).code == 0
    while not local.run("status", "--json").json["decoding"][0]["costs"]:
        time.sleep(0.1)
    states = [json.loads(file.read_text()) for file in (local.folder / "state").glob("engine-????????????????.json")]
    engine = psutil.Process(next(state["pid"] for state in states if psutil.pid_exists(state["pid"])))
    time.sleep(0.5)
    before = engine.cpu_times()
    time.sleep(3)
    after = engine.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.1


def test_a_model_that_is_not_there(local: Unmask, path: Path, tmp_path: Path) -> None:
    unknown = local.run("complete", path, *POSITION, "--model", "no-such-model")
    assert unknown.code == 1 and "no-such-model" in unknown.err and "qwen2.5-coder-0.5b" in unknown.err
    absent = local.run("complete", path, *POSITION)
    assert absent.code == 1 and "unmask pull qwen2.5-coder-0.5b" in absent.err


def test_serve_answers_with_its_token_and_stops_when_told(
    local: Unmask, checkpoint: Path, path: Path, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("a-good-long-token\n")
    token.chmod(0o600)
    server = local.start("serve", "--port", 0, "--model", checkpoint, "--token-file", token)
    try:
        assert server.stderr is not None
        url = ""
        for line in server.stderr:
            if found := re.search(rb"http://127\.0\.0\.1:\d+", line):
                url = found.group().decode()
                break
        remote = ("--url", url, "--token-file", token)
        done = local.run(*remote, "complete", path, *POSITION, "--max-tokens", 4, "--json")
        assert done.code == 0, done.err
        assert done.json["model"] == str(checkpoint)
        assert local.run(*remote, "status", "--json").json["status"] == "ready"
        token.write_text("another-token")
        refused = local.run(*remote, "complete", path, *POSITION)
        assert refused.code == 1 and "token" in refused.err
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
    assert server.returncode == 0
