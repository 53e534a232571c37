"""A model that is loaded again inside one engine: who ends on which, what is freed, what is refused."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import EngineConfig
from diffusion_core.engine import memory, self_test
from diffusion_core.engine.calibration import Calibration
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.loaded_model import LoadedModel, assemble
from diffusion_core.engine.self_test import check_model
from diffusion_core.errors import CheckpointError, EngineError, OutOfMemory
from diffusion_core.requests import CompletionRequest, Policy
from diffusion_core.requests import DecodingParams as Decoding


def completion(max_tokens: int) -> CompletionRequest:
    decoding = Decoding(policy=Policy.AUTOREGRESSIVE)
    return CompletionRequest(
        prefix="def add(a, b):\n", suffix="\n", stop_at_scope=False, max_tokens=max_tokens, decoding=decoding
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_checkpoint(tmp_path / "model", seed=0)


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    made = Engine(EngineConfig(model=str(folder), dtype="float32"))
    made.start()
    yield made
    made.close()


def loaded(engine: Engine) -> LoadedModel:
    (model,) = engine.loaded_models()
    return model


def test_the_old_model_is_freed_when_its_last_request_has_ended(engine: Engine, folder: Path) -> None:
    first = engine.submit(completion(4)).future.result(30).text
    job = engine.submit(completion(128))
    while job.num_forwards < 2:
        time.sleep(0.001)
    old = weakref.ref(loaded(engine))
    save_tiny_checkpoint(folder, seed=1)
    engine.reload(str(folder)).result(30)
    assert not job.future.done()
    assert engine.submit(completion(4)).future.result(30).text != first
    assert old() is not None
    assert job.future.result(60).text.startswith(first)
    del job
    give_up = time.monotonic() + 20
    while old() is not None:
        gc.collect()
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_without_memory_for_both_the_old_one_stays(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engine.submit(completion(4)).future.result(30).text
    model = loaded(engine)
    save_tiny_checkpoint(folder, seed=1)
    monkeypatch.setattr(memory, "available_bytes", lambda *_: 1000)
    with pytest.raises(OutOfMemory, match=r"needs .* GB .* are free"):
        engine.reload(str(folder)).result(30)
    assert loaded(engine) is model
    assert engine.submit(completion(4)).future.result(30).text == first
    health = engine.health()
    assert health.status == "ready"
    assert "a new checkpoint is refused, the old one answers" in health.notices[0]
    monkeypatch.undo()
    engine.reload(str(folder)).result(30)
    assert engine.health().notices == ()
    assert loaded(engine) is not model


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(IndexError("index"), EngineError), (torch.OutOfMemoryError("full"), OutOfMemory), (SystemExit(1), SystemExit)],
)
def test_a_self_test_that_fails_in_any_way_ends_the_reload(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, kind: type[BaseException]
) -> None:
    engine.submit(completion(1)).future.result(30)
    model = loaded(engine)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(self_test, "_score", fail)
    with pytest.raises(kind):
        engine.reload(str(folder)).result(30)
    assert "a new checkpoint is refused" in engine.health().notices[0]
    monkeypatch.undo()
    assert engine.reload(str(folder)).result(30) is not model


def test_reloads_that_come_together_are_one(engine: Engine, folder: Path) -> None:
    engine.submit(completion(1)).future.result(30)
    assert engine.reload(str(folder)) is engine.reload(str(folder))


def test_files_that_are_written_over_do_not_reach_a_loaded_model(engine: Engine, folder: Path) -> None:
    first = engine.submit(completion(32)).future.result(30).text
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert engine.submit(completion(32)).future.result(30).text == first
    weights.write_bytes(b"")
    assert engine.submit(completion(32)).future.result(30).text == first


@pytest.mark.parametrize(
    ("value", "message"), [(torch.nan, "not finite"), (torch.inf, "not finite"), (0.0, "make no sense")]
)
def test_weights_that_answer_nothing_are_found(engine: Engine, value: float, message: str) -> None:
    engine.submit(completion(1)).future.result(30)
    model = loaded(engine)
    check_model(model)
    weight = model.denoiser.model.norm.weight
    weight.data.fill_(value)
    with pytest.raises(CheckpointError, match=message):
        check_model(model)


def test_a_replaced_model_is_not_measured_any_more(folder: Path) -> None:
    """Under constant load a model waits for long to be measured, and would be kept for that."""
    config = EngineConfig(model=str(folder), dtype="float32")
    for num_samples in (0, 2):
        calibration = Calibration(config)
        old, new = (
            assemble(load_checkpoint(str(folder), dtype=torch.float32, device=torch.device("cpu"), serve=True), config)
            for _ in range(2)
        )
        calibration.meet(old)
        for _ in range(num_samples):
            calibration.advance()
        calibration.meet(new)
        gone = weakref.ref(old)
        del old
        gc.collect()
        assert gone() is None
        assert calibration.has_work
