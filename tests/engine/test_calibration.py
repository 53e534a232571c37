"""The engine measures what forwards cost while nobody waits, remembers it, and does nothing when it is done."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers.cost_tables import AMX
from helpers.tiny_models import save_tiny_checkpoint, tiny_denoiser, tiny_transformer

from diffusion_core.config import EngineConfig
from diffusion_core.engine import calibration
from diffusion_core.engine.calibration import choose_threads
from diffusion_core.engine.cost_file import CostFile, Remembered, describe_machine
from diffusion_core.engine.device import thread_candidates, usable_cores
from diffusion_core.engine.engine import Engine
from diffusion_core.model.config import DiffusionConfig, DrafterKind
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.model.packed import can_pack, max_equal_rows
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import why_not_quantized
from diffusion_core.requests import CompletionRequest
from diffusion_core.sampling.cost_probe import CostProbe
from diffusion_core.sampling.cost_table import CostTable
from diffusion_core.sampling.evaluate import Denoiser

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


def start(checkpoint: Path, file: Path | None = None, **changes: Any) -> Engine:
    values: dict[str, Any] = {"model": str(checkpoint), "dtype": "float32", "num_threads": 1} | changes
    engine = Engine(EngineConfig(**values), costs_file=file)
    engine.start()
    return engine


def wait_until_measured(engine: Engine) -> None:
    give_up = time.monotonic() + 30
    while not (reports := engine.health().decoding) or not reports[0].costs:
        assert time.monotonic() < give_up, "the model was not measured"
        time.sleep(0.01)


def request(**changes: Any) -> CompletionRequest:
    return CompletionRequest(**({"prefix": "ab = ab + ab\n" * 8, "max_tokens": 16, "stop_at_scope": False} | changes))


@pytest.mark.parametrize("kind", list(DrafterKind))
def test_every_kind_of_model_can_be_measured(kind: DrafterKind) -> None:
    probe = CostProbe(tiny_denoiser(drafter=kind))
    assert sum(1 for _ in probe.run()) >= 30
    table = probe.table
    assert table is not None
    assert [rows for rows, _ in table.body] == [2, 4, 8, 16, 32, 64]
    assert table.body[0][1] > 0 and table.head[0][1] > 0
    assert bool(table.slots) == (kind is DrafterKind.GATED_ADAPTER)
    assert bool(table.drafter) == (kind is DrafterKind.DRAFT_HEAD)


@pytest.mark.parametrize("dtype", [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(CPU, dtype)])
@pytest.mark.parametrize("quantize", [False, True])
def test_both_sides_of_a_step_in_the_products_are_measured(dtype: torch.dtype, quantize: bool) -> None:
    if quantize and (reason := why_not_quantized("cpu")):
        pytest.skip(reason)
    denoiser = tiny_denoiser()
    denoiser.model.to(dtype).pack(quantize=Quantization.INT8 if quantize else Quantization.NONE)
    probe = CostProbe(denoiser)
    for _ in probe.run():
        pass
    assert probe.table is not None
    # Integer sums have no order: products of 8 bits are never multiplied in parts.
    most = MAX_DECODE_ROWS if quantize else max_equal_rows(dtype)
    lasts = range(most, MAX_DECODE_ROWS, most)[: None if most >= 16 else 1]
    steps = {rows for last in lasts for rows in (last, last + 1)} | ({MAX_DECODE_ROWS} if lasts else set())
    assert {rows for rows, _ in probe.table.body} == {2, 4, 8, 16, 32, 64} | steps
    assert {rows for rows, _ in probe.table.head} == {2, 16, 64} | steps


def test_a_model_of_few_positions_can_be_measured() -> None:
    model = tiny_transformer(max_position_embeddings=128)
    probe = CostProbe(Denoiser(model, DiffusionConfig(prompt_format="plain/1")))
    for _ in probe.run():
        pass
    assert probe.table is not None


class CountingProbe(CostProbe):
    """A clock by which whatever is around the layers takes 3 ms and every layer 2 ms."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser)
        self.runs = [0] * len(denoiser.model.layers)
        for number, layer in enumerate(denoiser.model.layers):
            layer.register_forward_hook(partial(self._count, number))

    def _count(self, number: int, *_: object) -> None:
        self.runs[number] += 1

    def _time(self, work: Callable[[], object]) -> float:
        before = sum(self.runs)
        super()._time(work)
        return 3 + 2.0 * (sum(self.runs) - before)


@pytest.mark.parametrize("num_layers", [1, 2, 7, 8, 24, 29])
def test_a_part_of_the_layers_speaks_for_all_of_them(num_layers: int) -> None:
    model = tiny_transformer(num_layers=num_layers)
    probe = CountingProbe(Denoiser(model, DiffusionConfig(prompt_format="plain/1")))
    for _ in probe.run():
        pass
    assert probe.table is not None
    assert all(ms == pytest.approx(3 + 2 * num_layers) for _, ms in probe.table.body)
    assert all(ms == 3 for _, ms in probe.table.head)
    # Other layers each time, so that their weights come from memory.
    part = -(-num_layers // 8)
    assert min(probe.runs[: num_layers // part * part]) > 0
    assert max(probe.runs) - min(probe.runs[: num_layers // part * part]) <= 1


def test_an_idle_engine_measures_its_model_and_then_uses_no_processor(checkpoint: Path) -> None:
    engine = start(checkpoint)
    try:
        wait_until_measured(engine)
        text = engine.submit(request()).future.result(timeout=30).text
        assert engine.submit(request()).future.result(timeout=30).text == text
        time.sleep(0.2)
        process = psutil.Process()
        before, threads = process.cpu_times(), {t.id: t.user_time + t.system_time for t in process.threads()}
        time.sleep(2.0)
        after = process.cpu_times()
        assert after.user + after.system - before.user - before.system < 0.1, threads
    finally:
        engine.close()


def test_a_request_does_not_wait_for_the_measurement(checkpoint: Path) -> None:
    engine = start(checkpoint)
    try:
        first = engine.submit(request()).future.result(timeout=30)
        wait_until_measured(engine)
        second = engine.submit(request()).future.result(timeout=30)
        assert first.text == second.text
        report = engine.health().decoding[0]
        assert (report.model, report.num_threads) == (str(checkpoint), 1)
        assert report.num_tokens >= first.num_tokens + second.num_tokens
        assert report.tokens_per_forward >= 1
        assert {draft.source for draft in report.drafts} == {"lookup", "outlook"}
        assert report.drafts[0].num_drafted >= report.drafts[0].num_accepted
    finally:
        engine.close()


def test_a_second_start_remembers(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "state" / "costs.json"
    engine = start(checkpoint, file)
    wait_until_measured(engine)
    measured = engine.health().decoding[0].costs
    give_up = time.monotonic() + 10
    while not file.exists() and time.monotonic() < give_up:
        time.sleep(0.01)
    engine.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = file.stat().st_mtime_ns

    again = start(checkpoint, file)
    again.submit(request(max_tokens=1)).future.result(timeout=30)
    assert [c.rows for c in again.health().decoding[0].costs] == [c.rows for c in measured]
    time.sleep(0.1)
    again.close()
    assert file.stat().st_mtime_ns == written, "nothing was measured again"

    other = start(checkpoint, file, num_threads=2)
    wait_until_measured(other)
    other.close()
    torch.set_num_threads(1)
    assert len(json.loads(file.read_text())["models"]) == 2, "other threads, other costs"


KEY = "a model"
REMEMBERED = Remembered(AMX, 2)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = CostFile(tmp_path / "new" / "costs.json")
    assert file.read(KEY) is None
    file.write(KEY, REMEMBERED)
    file.write("another", Remembered(CostTable(body=((2, 1.0),), head=((2, 1.0),)), 1))
    assert CostFile(tmp_path / "new" / "costs.json").read(KEY) == REMEMBERED
    assert file.read("unknown") is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["costs.json"]


def test_only_so_many_models_are_remembered(tmp_path: Path) -> None:
    file = CostFile(tmp_path / "costs.json")
    for number in range(40):
        file.write(f"model {number}", REMEMBERED)
    assert file.read("model 0") is None
    assert file.read("model 39") == REMEMBERED


def spoil(content: dict[str, Any], how: str) -> bytes:
    entry = content["models"][KEY]
    match how:
        case "machine":
            content["machine"] = describe_machine().replace("torch ", "torch 0.")
        case "format":
            content["format"] = 0
        case "threads":
            entry["threads"] = 0
        case "table":
            entry["table"]["body"] = [[2, "fast"]]
        case "overflow":
            entry["table"]["body"] = [[2, 10**400]]
        case "keys":
            entry["table"]["num_keys"] = 10**400
        case "entry":
            content["models"][KEY] = [1]
        case "models":
            content["models"] = None
        case "list":
            return b"[1, 2]"
        case "cut":
            return json.dumps(content).encode()[:60]
        case "huge":
            return b" " * (1 << 21)
        case _:
            return b"\xff\x00"
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "how",
    ["machine", "format", "threads", "table", "overflow", "keys", "entry", "models", "list", "cut", "huge", "binary"],
)
def test_a_damaged_file_or_another_machine_is_as_good_as_none(tmp_path: Path, how: str) -> None:
    path = tmp_path / "costs.json"
    file = CostFile(path)
    file.write(KEY, REMEMBERED)
    path.write_bytes(spoil(json.loads(path.read_text()), how))
    assert file.read(KEY) is None
    file.write(KEY, REMEMBERED)
    assert file.read(KEY) == REMEMBERED


def test_a_file_that_cannot_be_written_costs_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    engine = start(checkpoint, tmp_path / "file" / "costs.json")
    wait_until_measured(engine)
    assert engine.submit(request()).future.result(timeout=30).num_tokens == 16
    engine.close()


def test_threads_are_chosen_by_measurement() -> None:
    before = torch.get_num_threads()
    try:
        probe = CostProbe(tiny_denoiser())
        torch.set_num_threads(1)
        for _ in choose_threads(probe, (2, 1)):
            assert torch.get_num_threads() == 1, "in between it is what it was"
        assert torch.get_num_threads() in (1, 2)
    finally:
        torch.set_num_threads(before)


class ScriptedProbe(CostProbe):
    """A model whose forwards take as long as a table says for the present number of threads."""

    def __init__(self, ms: dict[int, float]) -> None:
        self._ms = ms

    def time_threads(self) -> float:
        return self._ms[torch.get_num_threads()]


@pytest.mark.parametrize(
    ("ms", "chosen"), [({4: 20, 2: 30, 1: 60}, 4), ({4: 30, 2: 20, 1: 40}, 2), ({4: 20.0, 2: 20.5, 1: 40}, 2)]
)
def test_the_fastest_number_is_taken_and_of_equals_the_smallest(ms: dict[int, float], chosen: int) -> None:
    before = torch.get_num_threads()
    try:
        for _ in choose_threads(ScriptedProbe(ms), tuple(ms)):
            pass
        assert torch.get_num_threads() == chosen
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("environment", "configured"), [("1", 0), ("", 1)])
def test_a_number_of_threads_that_somebody_set_is_kept(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, environment: str, configured: int
) -> None:
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    else:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(calibration, "thread_candidates", lambda: (2, 1))

    def never(*_: object) -> None:
        raise AssertionError("the number of threads is not to be chosen")

    monkeypatch.setattr(calibration, "choose_threads", never)
    before = torch.get_num_threads()
    engine = start(checkpoint, num_threads=configured)
    try:
        wait_until_measured(engine)
        assert engine.health().decoding[0].num_threads == (configured or before)
    finally:
        engine.close()
        torch.set_num_threads(before)


def test_candidates_are_within_the_cores_that_may_be_used() -> None:
    candidates = thread_candidates()
    assert candidates == tuple(sorted(set(candidates), reverse=True))
    assert min(candidates) >= 1 and max(candidates) <= usable_cores()
