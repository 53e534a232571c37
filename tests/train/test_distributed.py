"""Two CPU processes (gloo) under torchrun do what one does, survive a kill, and hand their state to any number."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_worker import main
from safetensors.torch import load_file

from train.metrics import EVALUATION, STEP, read_metrics

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parents[1] / "helpers" / "tiny_worker.py"
STEPS = 6
# Sums over processes are taken in another order than over a batch; AdamW divides by the gradient's own size, so where
# a gradient is nearly nothing the order shows. Losses of these steps agree far better than they change (0.05 a step).
LOSS_TOLERANCE = 2e-4


def start_two(out: Path, steps: int = STEPS, kind: str = "sharded", **variables: str) -> tuple[list[int], str]:
    """Two processes as torchrun would start them, but at once; their exit codes and what the first one said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "TINY_QUIET": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(out), str(steps), kind],
            env={**shared, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), **variables},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        _wait_for_any(processes, timeout=90)
        texts = []
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()  # one whose partner was killed waits for it; torchrun would end it too
            texts.append(process.communicate()[1])
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], texts[0]


def _wait_for_any(processes: list[subprocess.Popen[str]], timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        time.sleep(0.05)


def losses(out: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(out) if record["kind"] == STEP]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("single")
    run_alone(out)
    return out


def run_alone(out: Path, **variables: str) -> None:
    """In this process. The global generator's seed is each process's own, so the objective is told not to use it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in {"TINY_QUIET": "1", **variables}.items():
            monkeypatch.setenv(name, value)
        main(str(out), str(STEPS))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sharded")
    codes, said = start_two(out)
    assert codes == [0, 0], said
    return out


def assert_same_run(one: Path, other: Path) -> None:
    assert losses(other) == pytest.approx(losses(one), abs=LOSS_TOLERANCE)
    mine, theirs = (load_file(out / "checkpoint/model.safetensors") for out in (one, other))
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, atol=2e-3, rtol=0)


def test_two_sharded_processes_have_the_losses_of_one(single: Path, sharded: Path) -> None:
    assert len(losses(single)) == STEPS and losses(single)[-1] < losses(single)[0] - 0.1
    assert_same_run(single, sharded)
    # Each process wrote its own half of the state.
    shards = list((sharded / "state/tensors").glob("*.safetensors"))
    assert len(shards) == 2
    name = "master.layers.0.mlp.down_proj.weight"
    assert [load_file(path)[name].shape for path in shards] == [torch.Size([16, 64])] * 2
    norms = [
        [record["grad_norm"] for record in read_metrics(out) if record["kind"] == STEP] for out in (single, sharded)
    ]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    evaluations = [[r["loss"] for r in read_metrics(out) if r["kind"] == EVALUATION] for out in (single, sharded)]
    assert evaluations[1] == pytest.approx(evaluations[0], abs=LOSS_TOLERANCE)
    tokens = [json.loads((out / "run.json").read_text())["num_tokens"] for out in (single, sharded)]
    assert tokens[0] == tokens[1] == STEPS * 8 * 24


def test_two_replicated_processes_have_the_losses_of_one(single: Path, tmp_path: Path) -> None:
    codes, said = start_two(tmp_path, kind="replicated")
    assert codes == [0, 0], said
    assert_same_run(single, tmp_path)


def test_replicated_processes_get_their_own_state_back(sharded: Path, tmp_path: Path) -> None:
    """The worker's objective refuses the state of another process; one process alone gets the main one's."""
    codes, said = start_two(tmp_path, kind="replicated", TINY_STOP_AT="1")
    assert codes == [0, 0], said
    state = state_of(tmp_path)
    assert (state["step"], state["objective_values_by_rank"]) == (2, [{"rank": 0}, {"rank": 1}])
    codes, said = start_two(tmp_path, kind="replicated", TINY_STOP_AT="3")
    assert codes == [0, 0] and "goes on from step 2" in said, said
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TINY_QUIET", "1")
        main(str(tmp_path), str(STEPS), "replicated")
    assert_same_run(sharded, tmp_path)


def test_torchrun_goes_on_by_itself_when_a_process_is_killed(sharded: Path, tmp_path: Path) -> None:
    """SIGKILL of one process in the fifth step; all start again from the state of the fourth."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TINY_QUIET": "1", "TINY_KILL_AT": "4"}
    finished = subprocess.run(
        [*command, str(WORKER), str(tmp_path), str(STEPS)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Signal 9 (SIGKILL)" in finished.stderr or "exitcode: -9" in finished.stderr
    assert "goes on from step 4" in finished.stderr
    assert losses(tmp_path) == losses(sharded)
    mine, theirs = (load_file(out / "checkpoint/model.safetensors") for out in (tmp_path, sharded))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_any_number_of_processes_goes_on_from_any_other(sharded: Path, tmp_path: Path) -> None:
    """Two are asked to stop, one goes on and is stopped, two end the run."""
    codes, said = start_two(tmp_path, TINY_STOP_AT="1")
    assert codes == [0, 0], said
    assert state_of(tmp_path)["step"] == 2 and len(list((tmp_path / "state/tensors").iterdir())) == 2
    run_alone(tmp_path, TINY_STOP_AT="3")
    assert state_of(tmp_path)["step"] == 4
    assert [path.name for path in (tmp_path / "state/tensors").iterdir()] == ["state.safetensors"]
    codes, said = start_two(tmp_path)
    assert codes == [0, 0] and "goes on from step 4" in said, said
    assert_same_run(sharded, tmp_path)


def state_of(out: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / "state/state.json").read_text())
    return values


def test_an_error_in_one_process_ends_all(sharded: Path, tmp_path: Path) -> None:
    """A run of another configuration is refused by the main process, and the other one does not wait for it."""
    shutil.copytree(sharded, tmp_path / "copy")
    codes, said = start_two(tmp_path / "copy", steps=STEPS + 1)
    assert codes == [1, 1]
    assert f"budget.steps: {STEPS} -> {STEPS + 1}" in said
