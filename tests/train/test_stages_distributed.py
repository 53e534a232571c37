"""The stages on two sharded CPU processes: the losses of one, and rollouts of unequal length that do not hang."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.stage_worker import main

from train.metrics import STEP, read_metrics

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parents[1] / "helpers" / "stage_worker.py"


def run_two(out: Path, objective: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(out), objective],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        texts = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], texts


def losses(out: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(out) if record["kind"] == STEP]


def test_the_edit_stage_has_the_losses_of_one_process(tmp_path: Path) -> None:
    main(str(tmp_path / "one"), "edit_stage")
    run_two(tmp_path / "two", "edit_stage")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)


@pytest.mark.parametrize("objective", ["order_distill", "on_policy"])
def test_rollouts_of_two_processes(tmp_path: Path, objective: str) -> None:
    run_two(tmp_path / "two", objective)
    assert len(losses(tmp_path / "two")) == 3
    assert (tmp_path / "two" / "checkpoint" / "model.safetensors").is_file()
