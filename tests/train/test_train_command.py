"""`unmask train` as a user calls it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers.tiny_training import build_tiny
from typer.testing import CliRunner

import train.run
from train.commands import register

QUICK = [
    "--set", "budget.steps=3", "--set", "data.sequences=4", "--set", "budget.evaluate_every=0",
    "--set", "data.max_tokens=24", "--device", "cpu", "--threads", "1",
]  # fmt: skip


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)
    return app


@pytest.fixture
def tiny_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's own objective is tried elsewhere; here the command is what is tried."""
    monkeypatch.setattr(train.run.run_plan, "__defaults__", (lambda _: build_tiny,))


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text))


def test_the_recipes_are_listed_with_what_they_do(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["train", "--help"])
    assert result.exit_code == 0
    for name in ("tiny_cpu", "adapt_gated", "tune_edits", "from_scratch", "report"):
        assert name in result.output
    assert "Mask corruption alone" in plain(result.output)


@pytest.mark.usefixtures("tiny_builder")
def test_a_run_from_the_command_line_and_its_report(app: typer.Typer, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = CliRunner().invoke(app, ["train", "mask_stage", "--out", str(out), *QUICK, "--set", "model.dtype=float32"])
    assert result.exit_code == 0, result.output
    assert "starts on CPU" in plain(result.output) and "ended at step 3 (done)" in plain(result.output)
    assert json.loads((out / "config.json").read_text())["budget"]["steps"] == 3
    (out / "report.html").unlink()
    result = CliRunner().invoke(app, ["train", "report", str(out), "--forward-times", "--device", "cpu"])
    assert result.exit_code == 0 and result.output.strip() == str(out / "report.html")
    assert (out / "report.html").exists()
    again = CliRunner().invoke(app, ["train", "mask_stage", "--out", str(out), *QUICK, "--set", "model.dtype=float32"])
    assert again.exit_code == 0 and "is finished: 3 steps" in plain(again.output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adapt_gated", "--set", "adapt.rnk=3"], "there is no field adapt.rnk; the nearest is adapt.rank"),
        (["adapt_gated", "--set", "adapt.rank=3.5"], "adapt.rank is a whole number, and '3.5' is not"),
        (["adapt_gated", "--set", "adapt.rank=0"], "adapt.rank is 0: at least 1"),
        (["adapt_gated", "--time-budget", "soon"], "'soon' is no duration"),
        (["tiny_cpu", "--set", "edit:seed=3"], "there is no stage edit"),
        (["tiny_gpu"], "No such command 'tiny_gpu'"),
    ],
)
def test_bad_usage_says_what_to_change(app: typer.Typer, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 2
    assert message in plain(result.output)


def test_settings_can_be_shown_and_meant_for_one_stage(app: typer.Typer) -> None:
    arguments = [
        "train",
        "tiny_cpu",
        "--set",
        "seed=9",
        "--set",
        "on_policy:optim.learning_rate=0.5",
        "--show-settings",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    sections = re.split(r"^\[(\w+)\]\n", result.output, flags=re.MULTILINE)[1:]
    by_stage = dict(zip(sections[::2], sections[1::2], strict=True))
    assert list(by_stage) == ["mask_stage", "edit_stage", "order_distill", "on_policy"]
    assert all("seed=9\n" in text for text in by_stage.values())
    assert [stage for stage, text in by_stage.items() if "optim.learning_rate=0.5\n" in text] == ["on_policy"]


def test_settings_for_two_cores(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["train", "adapt_gated", "--cpu", "--show-settings"]).output
    assert "schedule.decay_over=steps\n" in shown and "data.max_tokens=288\n" in shown


def test_the_command_is_there_without_torch() -> None:
    code = (
        "import sys; from diffusion_core.commands import make_app; import typer;"
        "names = set(typer.main.get_command(make_app()).commands);"
        "assert 'train' in names, names; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
