"""Files of drafters: round trip, checks against the base model, and the configuration of base and drafter together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.tiny_checkpoints import VOCAB_SIZE, save_hf_folder, tiny_model
from safetensors.torch import load_file, save_file

from diffusion_core.checkpoints.adapter import (
    DraftHeadMetadata,
    GatedAdapterMetadata,
    adapter_shapes,
    load_drafter,
    save_drafter,
)
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.errors import CheckpointError
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import DiffusionConfig, DrafterKind, ModelConfig

CONFIG = ModelConfig(
    vocab_size=VOCAB_SIZE, hidden_size=64, intermediate_size=96, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16
)


def random_tensors(rank: int) -> dict[str, torch.Tensor]:
    return {name: torch.randn(shape) for name, shape in adapter_shapes(CONFIG, rank).items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_drafter(tmp_path / "adapter", GatedAdapterMetadata(rank=4, alpha=8.0, mask_token_id=280), random_tensors(4))
    return tmp_path / "adapter"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "drafter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_gated_adapter_comes_back_exactly_and_fits_the_module(tmp_path: Path) -> None:
    adapter = GatedAdapter(CONFIG, rank=4, alpha=8.0)
    adapter.randomise(torch.Generator().manual_seed(0))
    save_drafter(tmp_path / "a", GatedAdapterMetadata(rank=4, alpha=8.0), adapter.named_tensors())
    drafter = load_drafter(tmp_path / "a", CONFIG)
    assert drafter.metadata == GatedAdapterMetadata(rank=4, alpha=8.0, mask_token_id=None)
    fresh = GatedAdapter(CONFIG, rank=4, alpha=8.0)
    fresh.load_tensors(drafter.tensors)
    for name, tensor in adapter.named_tensors().items():
        assert torch.equal(fresh.named_tensors()[name], tensor), name


def test_a_draft_head_keeps_free_tensor_names(tmp_path: Path) -> None:
    tensors = {"anything.weight": torch.randn(3, 5), "other": torch.randn(2)}
    save_drafter(tmp_path / "h", DraftHeadMetadata(num_layers=1, tap_layers=(0, 2), vocabulary_size=64), tensors)
    drafter = load_drafter(tmp_path / "h", CONFIG)
    assert drafter.metadata == DraftHeadMetadata(num_layers=1, tap_layers=(0, 2), vocabulary_size=64)
    assert all(torch.equal(drafter.tensors[name], tensor) for name, tensor in tensors.items())


def test_tensors_that_do_not_fit_the_base_are_named(folder: Path) -> None:
    path = folder / "drafter.safetensors"
    tensors = load_file(path)
    name = "layers.1.mlp.down_proj.up"
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    with pytest.raises(CheckpointError, match=rf"drafter\.safetensors: tensor {name} is missing, \[64, 4\] expected"):
        load_drafter(folder, CONFIG)
    save_file(tensors | {name: torch.zeros(64, 5)}, path)
    with pytest.raises(CheckpointError, match=rf"tensor {name} has shape \[64, 5\]"):
        load_drafter(folder, CONFIG)
    save_file(tensors | {"layers.2.mlp.down_proj.up": torch.zeros(64, 4)}, path)
    with pytest.raises(CheckpointError, match=r"tensor layers\.2\.mlp\.down_proj\.up is unexpected"):
        load_drafter(folder, CONFIG)
    save_file(tensors | {name: torch.full((64, 4), float("inf"))}, path)
    with pytest.raises(CheckpointError, match=rf"tensor {name} has values that are not finite"):
        load_drafter(folder, CONFIG)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"drafter\.safetensors is truncated: tensor"):
        load_drafter(folder, CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "lora"}, "kind 'lora' is unknown: gated_adapter and draft_head are known"),
        ({"rank": "4"}, "rank is '4'"),
        ({"rank": 0}, "rank is 0, at least 1"),
        ({"rank": 8}, r"tensor layers\.0\.attention\.qkv_proj\.down has shape \[4, 64\], \[8, 64\] expected"),
        ({"mask_token_id": 288}, "mask_token_id 288 is outside the vocabulary of 288"),
        ({"colour": 1}, "key colour is unknown"),
    ],
)
def test_wrong_metadata_is_named(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_drafter(folder, CONFIG)


def test_a_tap_beyond_the_last_layer_is_refused(tmp_path: Path) -> None:
    save_drafter(
        tmp_path / "h", DraftHeadMetadata(num_layers=1, tap_layers=(3,), vocabulary_size=64), {"x": torch.zeros(1)}
    )
    with pytest.raises(CheckpointError, match=r"tap_layers is \[3\], numbers from 0 to 2 expected"):
        load_drafter(tmp_path / "h", CONFIG)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/drafter\.json is missing"):
        load_drafter(tmp_path / "nowhere", CONFIG)


@pytest.mark.parametrize(("mask", "expected"), [(280, 280), (None, VOCAB_SIZE)])
def test_a_checkpoint_with_an_adapter_is_a_diffusion_checkpoint(
    tmp_path: Path, mask: int | None, expected: int
) -> None:
    base = save_hf_folder(tmp_path / "base", tiny_model("llama"))
    save_drafter(tmp_path / "a", GatedAdapterMetadata(rank=4, alpha=8.0, mask_token_id=mask), random_tensors(4))
    checkpoint = load_checkpoint(str(base), dtype=torch.float32, device=torch.device("cpu"), drafter=tmp_path / "a")
    assert checkpoint.adapter is not None
    config = checkpoint.diffusion_config
    assert (config.drafter, config.mask_token_id) == (DrafterKind.GATED_ADAPTER, expected)
    assert config.stop_token_ids == tuple(range(256, 263)), "ids of the base are kept"


def test_a_configuration_beside_the_drafter_replaces_that_of_the_base(tmp_path: Path) -> None:
    base = save_hf_folder(tmp_path / "base", tiny_model("llama"))
    given = DiffusionConfig(prompt_format="plain/1", block_size=16)
    save_drafter(tmp_path / "a", GatedAdapterMetadata(rank=4, alpha=8.0), random_tensors(4), given)
    checkpoint = load_checkpoint(str(base), dtype=torch.float32, device=torch.device("cpu"), drafter=tmp_path / "a")
    assert checkpoint.diffusion_config.block_size == 16
    assert checkpoint.diffusion_config.prompt_format == "plain/1"
