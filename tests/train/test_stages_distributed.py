"""The stages on two sharded CPU processes: the losses of one, and rollouts of unequal length that do not hang."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.stage_worker import main
from safetensors.torch import load_file

from train.metrics import STEP, read_metrics

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parents[1] / "helpers" / "stage_worker.py"


def run_two(out: Path, objective: str, **variables: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(out), objective],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **variables},
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


def remembered(out: Path) -> dict[str, torch.Tensor]:
    """What the objectives of all processes have in the saved state."""
    found: dict[str, torch.Tensor] = {}
    for path in (out / "state" / "tensors").iterdir():
        found |= {name: tensor for name, tensor in load_file(path).items() if name.startswith("objective.")}
    return found


def test_each_process_gets_its_own_pool_back(tmp_path: Path) -> None:
    run_two(tmp_path / "whole", "order_distill")
    run_two(tmp_path / "parts", "order_distill", STAGE_STOP_AT="0")
    assert len(losses(tmp_path / "parts")) == 1
    saved = remembered(tmp_path / "parts")
    run_two(tmp_path / "parts", "order_distill")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    pools, again = remembered(tmp_path / "whole"), remembered(tmp_path / "parts")
    assert pools.keys() == again.keys() == saved.keys()
    assert {name.split(".")[1] for name in pools} == {"rank0", "rank1"}
    for name, tensor in pools.items():
        assert torch.equal(tensor, again[name]) and torch.equal(tensor, saved[name]), name
    assert pools["objective.rank0.prompts"].tolist() != pools["objective.rank1.prompts"].tolist()
    # One process has other prompts than either: it makes a pool of its own.
    (tmp_path / "parts" / "state" / "state.json").write_text(
        (tmp_path / "parts" / "state" / "state.json").read_text().replace('"step": 3', '"step": 2')
    )
    main(str(tmp_path / "parts"), "order_distill")
    alone = remembered(tmp_path / "parts")
    assert len(alone["objective.final"]) == 4 == 2 * len(pools["objective.rank0.final"])
