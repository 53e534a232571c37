"""The report of a run: one page with everything inside, its plots as files, and figure 2b measured for real."""

from __future__ import annotations

import base64
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import save_tiny_checkpoint, tiny_denoiser
from helpers.tiny_training import build_tiny, small_config
from rich.console import Console

from diffusion_core.checkpoints.adapter import GatedAdapterMetadata, save_drafter
from diffusion_core.errors import ConfigError
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import DrafterKind, read_model_config
from train.config import BudgetConfig, ModelSettings
from train.forward_times import (
    ForwardTime,
    load_denoiser,
    measure_forward_times,
    read_forward_times,
    write_forward_times,
)
from train.metrics import MetricsFile
from train.recipes import Stage
from train.report import write_report
from train.report_plots import offset_curves, plot_tokens_per_forward, series, smooth
from train.run import RunOptions, measure_run, run_plan

PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Collects what a browser would load, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.titles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            self.sources.append(values["src"] or "")
            self.titles.append(values["alt"] or "")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run <1>"
    config = small_config(budget=BudgetConfig(steps=12, evaluate_every=3))
    stage = Stage(name=config.objective, config=config, time_share=1.0)
    run_plan([stage], RunOptions(out=out, device="cpu"), Console(quiet=True), lambda _: build_tiny)
    return out


def test_the_page_needs_no_other_file_and_shows_every_curve(finished: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.titles == [
        "Loss", "accuracy by offset", "Tokens per forward over training", "Forward time over block size",
        "Gradient norm and learning rate", "Speed",
    ]  # fmt: skip
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert "run &lt;1&gt;" in text and "run <1>" not in text
    for fact in ("optim.learning_rate", "model FLOP utilisation", "CPU, ", "a second", "GFLOP a token"):
        assert fact in text


def test_the_plots_are_files_too(finished: Path) -> None:
    names = {path.stem for path in (finished / "plots").iterdir()}
    assert names == {"loss", "accuracy_by_offset", "tokens_per_forward", "forward_time", "optimisation", "speed"}
    page = Page((finished / "report.html").read_text(encoding="utf-8"))
    inside = {base64.b64decode(source.partition(",")[2]) for source in page.sources}
    files = {path.read_bytes() for path in (finished / "plots").iterdir()}
    assert inside == files and all(content.startswith(PNG) and len(content) > 3000 for content in files)


def test_the_table_has_every_evaluation(finished: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    table = text[text.index("Evaluations on held-out data") :]
    assert re.findall(r"<tr><td>(\d+)</td>", table)[:5] == ["0", "3", "6", "9", "12"]
    assert "<th>tokens_per_forward</th>" in table and "accuracy/0" not in table


def test_a_run_that_was_killed_has_a_report(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text((finished / "metrics.jsonl").read_text()[:-30])
    text = write_report(tmp_path).read_text()
    assert "not ended" in text and "Loss" in text


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of a run"):
        write_report(tmp_path)


def test_stages_have_sections_and_one_curve_over_all(tmp_path: Path) -> None:
    for number, (stage, start) in enumerate([("mask_stage", 1.0), ("edit_stage", 2.0)]):
        folder = tmp_path / f"{number + 1}-{stage}"
        folder.mkdir()
        file = MetricsFile(folder)
        for step in (0, 5, 10):
            file.write("evaluation", step, {"tokens_per_forward": start + step / 10})
    page = Page(write_report(tmp_path).read_text())
    assert page.titles == ["Tokens per forward over training"] * 3
    assert (tmp_path / "plots/tokens_per_forward.png").read_bytes().startswith(PNG)


def test_curves_over_offsets_are_found_by_name() -> None:
    record = {
        "step": 3,
        "accuracy/10": 0.1,
        "accuracy/2": 0.3,
        "accuracy/0": 0.5,
        "base/top/1": 0.2,
        "loss": 1,
        "x/y": 2,
    }
    assert offset_curves(record) == {"accuracy": [(0, 0.5), (2, 0.3), (10, 0.1)], "base/top": [(1, 0.2)]}


def test_smoothing_begins_at_the_first_value() -> None:
    assert smooth([4.0, 4.0, 4.0]) == pytest.approx([4.0] * 3)
    assert smooth([0.0, 1.0], keep=0.5) == pytest.approx([0.0, 2 / 3])


def test_tokens_per_forward_fall_back_to_training_data() -> None:
    records = [{"kind": "step", "step": k, "tokens_per_forward": 1.0 + k} for k in range(3)]
    plot = plot_tokens_per_forward(records)
    assert plot is not None and plot.png.startswith(PNG)
    assert plot_tokens_per_forward([{"kind": "step", "step": 1, "loss": 2.0}]) is None
    assert series(records, "step", "tokens_per_forward") == ([0, 1, 2], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("drafter", [DrafterKind.NONE, DrafterKind.GATED_ADAPTER])
def test_forward_times_are_measured_with_the_serving_cache(drafter: DrafterKind) -> None:
    denoiser = tiny_denoiser(drafter=drafter)
    times = measure_forward_times(denoiser, block_sizes=(1, 4, 64), context_tokens=300, repeats=3)
    assert [entry.block_size for entry in times] == [1, 4, 64]
    assert all(0 < entry.milliseconds < 5000 and entry.context_tokens == 300 for entry in times)


def test_forward_times_stop_at_their_limit() -> None:
    start = time.monotonic()
    times = measure_forward_times(tiny_denoiser(), context_tokens=64, repeats=1, limit_seconds=0.0)
    assert len(times) == 1 and time.monotonic() - start < 10


def test_forward_times_of_a_drafters_run(tmp_path: Path) -> None:
    """The checkpoint of an adapter's run is a drafter: it is measured on its base."""
    base = save_tiny_checkpoint(tmp_path / "base")
    config = read_model_config(base / "model_config.json")
    adapter = GatedAdapter(config, rank=4, alpha=4.0)
    save_drafter(tmp_path / "run/checkpoint", GatedAdapterMetadata(rank=4, alpha=4.0), adapter.named_tensors())
    settings = ModelSettings(base=str(base))
    denoiser = load_denoiser(tmp_path / "run/checkpoint", settings, torch.device("cpu"))
    assert denoiser.adapter is not None and denoiser.adapter.rank == 4
    from train.settings import to_json

    (tmp_path / "run/config.json").write_text(json.dumps(to_json(small_config(model=settings))))
    measure_run(tmp_path / "run", "cpu")
    device, times = read_forward_times(tmp_path / "run")
    assert device.startswith("CPU") and [entry.block_size for entry in times] == [1, 2, 4, 8, 16, 32, 64, 128]


def test_a_damaged_measurement_is_named(tmp_path: Path) -> None:
    assert read_forward_times(tmp_path) == ("", [])
    write_forward_times(tmp_path, [ForwardTime(block_size=2, milliseconds=1.5, context_tokens=8)], "CPU")
    assert read_forward_times(tmp_path)[1][0].milliseconds == 1.5
    (tmp_path / "forward_times.json").write_text('{"times": 3}')
    with pytest.raises(ConfigError, match="damaged"):
        read_forward_times(tmp_path)
