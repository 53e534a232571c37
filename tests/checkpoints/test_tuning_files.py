"""Tunings: files, the merge into the base's weights, and an engine that uses one or does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import save_tiny_checkpoint, tiny_config
from safetensors.torch import load_file, save_file

from diffusion_core.checkpoints import tunings
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.checkpoints.packaged import find_packaged_tuning
from diffusion_core.checkpoints.registry import registry
from diffusion_core.checkpoints.tuning import TuningMetadata, load_tuning, save_tuning, tuning_shapes
from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.errors import CheckpointError, ConfigError
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.masks import causal
from diffusion_core.requests import CompletionRequest, EditRequest

CONFIG = tiny_config()
CPU = torch.device("cpu")
ROWS = torch.arange(40, 60).unsqueeze(0)
POSITIONS = torch.arange(20).unsqueeze(0)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_checkpoint(tmp_path / "base")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(5)
    tensors = {name: torch.randn(s, generator=generator) * 0.2 for name, s in tuning_shapes(CONFIG, 4).items()}
    save_tuning(tmp_path / "tuning", TuningMetadata(rank=4, alpha=8.0), tensors)
    return tmp_path / "tuning"


def logits(base: Path, tuning: Path | None, *, serve: bool) -> torch.Tensor:
    model = load_checkpoint(str(base), dtype=torch.float32, device=CPU, tuning=tuning, serve=serve).model
    with torch.no_grad():
        return model.logits(model(ROWS, POSITIONS, causal(20)))


@pytest.mark.parametrize("serve", [False, True])
def test_the_merged_base_is_the_base_with_the_adapter_on_every_row(base: Path, folder: Path, serve: bool) -> None:
    plain = load_checkpoint(str(base), dtype=torch.float32, device=CPU).model
    adapter = GatedAdapter(CONFIG, rank=4, alpha=8.0)
    tensors = load_tuning(folder, CONFIG).tensors
    adapter.load_tensors({**tensors, "mask_embedding": adapter.mask_embedding.detach()})
    with torch.no_grad():
        wanted = plain.logits(plain(ROWS, POSITIONS, causal(20), adapter=adapter, first_slot=0))
    found = logits(base, folder, serve=serve)
    assert torch.allclose(found, wanted, atol=2e-4)
    assert not torch.allclose(found, logits(base, None, serve=serve), atol=0.05), "the tuning does something"


def test_the_base_on_disk_stays_as_it_was(base: Path, folder: Path) -> None:
    before = (base / "model.safetensors").read_bytes()
    logits(base, folder, serve=True)
    logits(base, folder, serve=False)
    assert (base / "model.safetensors").read_bytes() == before


def ask(config: EngineConfig) -> tuple[str, str]:
    """An answer of each task."""
    engine = Engine(config)
    engine.start()
    try:
        completion = engine.submit(CompletionRequest(prefix="def area(", suffix="", language="python", max_tokens=12))
        edit = engine.submit(
            EditRequest(selection="a = 1\nb = 2\n", instruction="swap", language="python", max_tokens=12)
        )
        return completion.future.result(timeout=60).text, edit.future.result(timeout=60).text
    finally:
        engine.close()


def test_an_engine_merges_a_tuning_into_the_model_that_answers_edits(tmp_path: Path, base: Path, folder: Path) -> None:
    other = save_tiny_checkpoint(tmp_path / "other")
    config = {"model": str(base), "edit_model": str(other), "dtype": "float32", "max_context_tokens": 2048}
    plain = ask(EngineConfig(**config, tuning="none"))
    assert ask(EngineConfig(**config)) == plain, "no tuning comes with a folder"
    tuned = ask(EngineConfig(**config, tuning=str(folder)))
    assert tuned[0] == plain[0] and tuned[1] != plain[1]
    both = ask(EngineConfig(**(config | {"edit_model": str(base)}), tuning=str(folder)))
    assert both[1] == tuned[1] and both[0] != plain[0], "a model of both tasks is one model"


def test_a_damaged_tuning_is_named(base: Path, folder: Path, tmp_path: Path) -> None:
    path = folder / "tuning.safetensors"
    tensors = load_file(path)
    name = "layers.1.mlp.down_proj.up"

    def fails(changed: dict[str, torch.Tensor], match: str) -> None:
        save_file(changed, path)
        with pytest.raises(CheckpointError, match=match):
            load_checkpoint(str(base), dtype=torch.float32, device=CPU, tuning=folder)

    fails({k: v for k, v in tensors.items() if k != name}, f"{name} is missing")
    fails(tensors | {name: tensors[name][:, :2].contiguous()}, f"{name} has shape")
    fails(tensors | {name: tensors[name] * float("nan")}, "not finite")
    fails(tensors | {"mask_embedding": torch.zeros(32)}, "mask_embedding is unexpected")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"tuning\.safetensors"):
        load_tuning(folder, CONFIG)
    with pytest.raises(CheckpointError, match=r"tuning\.json"):
        load_tuning(tmp_path / "nowhere", CONFIG)


@pytest.mark.parametrize(
    ("change", "match"),
    [({"rank": 0}, "rank is 0"), ({"alpha": "x"}, "alpha is 'x'"), ({"kind": "gated_adapter"}, "is unknown")],
)
def test_wrong_metadata_is_named(folder: Path, change: dict[str, object], match: str) -> None:
    path = folder / "tuning.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=match):
        load_tuning(folder, CONFIG)


def test_packaged_tunings_belong_to_named_models_and_are_small() -> None:
    assert find_packaged_tuning("../tunings") is None and find_packaged_tuning("no-such-model") is None
    for folder in Path(tunings.__file__).parent.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert folder.name in registry() and find_packaged_tuning(folder.name) == folder
            assert sum(file.stat().st_size for file in folder.iterdir()) <= 40_000_000
            assert (folder / "README.md").is_file(), "a tuning has a card"


def test_an_empty_tuning_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="allowed are auto, none"):
        EngineConfig(tuning="")
