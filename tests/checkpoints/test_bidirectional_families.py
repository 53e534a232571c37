"""Dream, LLaDA, CoDA, Open-dCoder and Tiny-A2D mdlm: loaded as their own code has them, and what is wrong is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.family_fixtures import FOLDER, fixture_folder, full_logits, load_fixture, read_golden
from safetensors.torch import load_file, save_file

from diffusion_core.checkpoints.export import export_folder
from diffusion_core.checkpoints.families.recognise import FAMILIES, find_family, recognise
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import AttentionPattern, Certainty, DrafterKind, LogitAlignment

NAMES = ("dream", "llada", "coda", "open-dcoder", "a2d-qwen2-mdlm", "a2d-qwen3-mdlm")
PATH = Path("m") / "config.json"


def copy_of(family: str, folder: Path, **changes: Any) -> Path:
    """The fixture with other values in its ``config.json``; ``...`` removes a key."""
    shutil.copytree(fixture_folder(family), folder)
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    return folder


@pytest.mark.parametrize("family", NAMES)
def test_logits_equal_those_of_the_reference_code(family: str) -> None:
    checkpoint = load_fixture(family)
    for ids, expected in read_golden(family).logits:
        torch.testing.assert_close(full_logits(checkpoint, ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", NAMES)
def test_a_round_trip_gives_the_reference_its_own_tensors_back(tmp_path: Path, family: str) -> None:
    values = json.loads((fixture_folder(family) / "config.json").read_text())
    checkpoint = load_fixture(family)
    export_folder(tmp_path / "m", checkpoint.model, checkpoint.tokenizer, find_family(family), values)
    before = load_file(fixture_folder(family) / "model.safetensors")
    after = load_file(tmp_path / "m" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "m" / "config.json").read_text()) == values


def test_contracts_are_those_of_the_families() -> None:
    found = {name: load_fixture(name).diffusion_config for name in NAMES}
    for name, contract in found.items():
        assert contract.attention is AttentionPattern.BIDIRECTIONAL
        assert contract.drafter is DrafterKind.MODEL
        assert not contract.has_causal_clean_path
        assert contract.mask_token_id in contract.banned_token_ids, "a mask is never an answer"
        assert contract.stop_token_ids, name
    shifted = {name for name, contract in found.items() if contract.alignment is LogitAlignment.SHIFTED}
    assert shifted == {"dream", "coda", "open-dcoder"}
    by_entropy = {name for name, contract in found.items() if contract.certainty is Certainty.ENTROPY}
    assert by_entropy == {"dream", "coda"}


def test_coda_keeps_its_own_head_whatever_its_configuration_says(tmp_path: Path) -> None:
    """Its class never ties the two, though ``tie_word_embeddings`` is true by default."""
    checkpoint = load_fixture("coda", copy_of("coda", tmp_path / "m", tie_word_embeddings=True))
    assert not checkpoint.model_config.tie_word_embeddings
    ids, expected = read_golden("coda").logits[0]
    torch.testing.assert_close(full_logits(checkpoint, ids), expected, rtol=0, atol=1e-4)


def test_what_may_be_a_diffucoder_is_named_by_the_user_and_asks_for_its_licence() -> None:
    values = {"model_type": "Dream", "architectures": ["DreamModel"]}
    assert recognise(PATH, values, {"<|mask|>": 5}).name == "dream"
    with pytest.raises(CheckpointError, match="say --family dream or --family diffucoder"):
        recognise(PATH, values, {"<|mask|>": 5, "<|dlm_pad|>": 6})
    for name in ("dream", "diffucoder"):
        assert recognise(PATH, values, {"<|mask|>": 5, "<|dlm_pad|>": 6}, wanted=name).name == name
    restricted = {name for name, family in FAMILIES.items() if family.licence_must_be_accepted}
    assert {"diffucoder", "coda"} <= restricted
    assert all(FAMILIES[name].licence_url for name in restricted)


def test_open_dcoder_is_never_taken_for_the_qwen2_that_it_says_it_is(tmp_path: Path) -> None:
    folder = copy_of("open-dcoder", tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"config\.json: .*--family open-dcoder"):
        load_checkpoint(str(folder), dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize("base", ["qwen2", "qwen3"])
def test_mdlm_must_be_told_from_bd3lm(base: str) -> None:
    with pytest.raises(CheckpointError, match=f"--family a2d-{base}-bd3lm or --family a2d-{base}-mdlm"):
        load_checkpoint(str(fixture_folder(f"a2d-{base}-mdlm")), dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llada", {"block_type": "sequential"}, "block_type 'sequential' is not supported: 'llama' is"),
        ("llada", {"include_qkv_bias": True}, "include_qkv_bias True is not supported"),
        ("llada", {"layer_norm_type": "default"}, "layer_norm_type 'default' is not supported: 'rms' is"),
        ("llada", {"d_model": ...}, "key d_model is missing"),
        ("llada", {"mlp_hidden_size": ...}, "key mlp_hidden_size is missing"),
        ("llada", {"n_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ("llada", {"mask_token_id": 126336}, r"mask_token_id is 126336, but .* <\|mdm_mask\|> the id 258"),
        ("llada", {"mlp_hidden_size": 64}, r"blocks\.0\.ff_proj\.weight has shape \[48, 32\], \[64, 32\] expected"),
        ("dream", {"mask_token_id": 151666}, r"mask_token_id is 151666, but the tokenizer gives <\|mask\|> the id 260"),
        ("dream", {"num_hidden_layers": 3}, r"tensor model\.layers\.2\.input_layernorm\.weight is missing"),
        ("dream", {"model_type": "llada"}, "with model_type 'llada' are those of no known family"),
        ("coda", {"num_hidden_layers": 1}, r"tensor model\.layers\.1\.\S+ is unexpected"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, family: str, changes: dict[str, Any], message: str) -> None:
    folder = copy_of(family, tmp_path / "m", **changes)
    # Dream's fixture has the token that makes it possibly a DiffuCoder.
    named = "dream" if family == "dream" and "model_type" not in changes else "auto"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(folder), dtype=torch.float32, device=torch.device("cpu"), family=named)


def test_tensors_of_olmo_s_names_are_named_by_them(tmp_path: Path) -> None:
    folder = copy_of("llada", tmp_path / "m")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "model.transformer.blocks.1.attn_out.weight"
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: tensor {name} is missing, \[32, 32\] expected"):
        load_checkpoint(str(folder), dtype=torch.float32, device=torch.device("cpu"))


def test_fixtures_are_small() -> None:
    for family in NAMES:
        size = sum(path.stat().st_size for path in (FOLDER / family).rglob("*") if path.is_file())
        assert size < 1_000_000, family
