"""What is wrong with a checkpoint of a family is said before any answer: file, tensor and expectation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.family_fixtures import fixture_folder, load_fixture
from helpers.tiny_checkpoints import SPECIALS, save_gguf
from safetensors.torch import load_file, save_file

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import AttentionPattern

DIFFUSION = ("stable-diffcoder", "sdar", "fast-dllm-v2", "a2d-qwen2-bd3lm", "a2d-qwen3-bd3lm")
FAMILIES = (*DIFFUSION, "seed-coder", "qwen2", "qwen3")
TENSOR = "model.layers.1.self_attn.k_proj.weight"
CPU = torch.device("cpu")


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the family's fixture, to be damaged."""
    return Path(shutil.copytree(fixture_folder(request.param), tmp_path / "m"))


def edit_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


def edit_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def family_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["copy"])


@pytest.mark.parametrize("copy", FAMILIES, indirect=True)
def test_missing_extra_and_misshapen_tensors_are_named(request: pytest.FixtureRequest, copy: Path) -> None:
    family, shape = family_of(request), list(load_file(copy / "model.safetensors")[TENSOR].shape)
    original = (copy / "model.safetensors").read_bytes()
    edit_tensors(copy, **{TENSOR: None})
    with pytest.raises(CheckpointError) as found:
        load_fixture(family, copy)
    assert str(found.value).endswith(f"m/model.safetensors: tensor {TENSOR} is missing, {shape} expected")
    (copy / "model.safetensors").write_bytes(original)
    edit_tensors(copy, **{TENSOR: torch.zeros(3, 5)})
    with pytest.raises(CheckpointError) as found:
        load_fixture(family, copy)
    assert str(found.value).endswith(
        f"m/model.safetensors: tensor {TENSOR} has shape [3, 5], {shape} expected by the configuration"
    )
    (copy / "model.safetensors").write_bytes(original)
    edit_tensors(copy, **{"model.layers.1.self_attn.gate.weight": torch.zeros(2)})
    with pytest.raises(
        CheckpointError, match=r"m/model\.safetensors: tensor model\.layers\.1\.self_attn\.gate\.weight"
    ):
        load_fixture(family, copy)


@pytest.mark.parametrize("copy", FAMILIES, indirect=True)
def test_a_truncated_shard_is_named(request: pytest.FixtureRequest, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    placed = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, copy / file)
        placed |= dict.fromkeys(part, file)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    load_fixture(family_of(request), copy)  # whole, it loads
    shard = copy / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors"):
        load_fixture(family_of(request), copy)
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        load_fixture(family_of(request), copy)


@pytest.mark.parametrize("copy", FAMILIES, indirect=True)
def test_a_key_that_the_shape_needs_is_named(request: pytest.FixtureRequest, copy: Path) -> None:
    edit_json(copy / "config.json", intermediate_size=...)
    with pytest.raises(CheckpointError, match=r"m/config\.json: key intermediate_size is missing"):
        load_fixture(family_of(request), copy)


@pytest.mark.parametrize("copy", ["fast-dllm-v2"], indirect=True)
def test_the_key_that_tells_the_block_is_named(copy: Path) -> None:
    edit_json(copy / "config.json", bd_size=...)
    with pytest.raises(CheckpointError, match=r"m/config\.json: .*Fast_dLLM_Qwen.*no known family"):
        load_fixture("fast-dllm-v2", copy)
    edit_json(copy / "config.json", bd_size="32")
    with pytest.raises(CheckpointError, match=r"m/config\.json: bd_size is '32', a number of tokens expected"):
        load_fixture("fast-dllm-v2", copy)


@pytest.mark.parametrize("copy", FAMILIES, indirect=True)
def test_another_family_than_the_files_show_is_refused(request: pytest.FixtureRequest, copy: Path) -> None:
    family = family_of(request)
    kind = json.loads((copy / "config.json").read_text())["model_type"]
    wrong = "sdar" if family != "sdar" else "stable-diffcoder"
    with pytest.raises(CheckpointError, match=rf"m/config\.json: model_type is '{kind}', family {wrong} has "):
        load_checkpoint(str(copy), dtype=torch.float32, device=CPU, family=wrong)


@pytest.mark.parametrize("copy", ["sdar"], indirect=True)
def test_a_wrong_mask_id_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", mask_token_id=260)
    with pytest.raises(CheckpointError, match=r"config\.json: mask_token_id is 260, but .* <\|MASK\|> the id 262"):
        load_fixture("sdar", copy)


@pytest.mark.parametrize("copy", DIFFUSION, indirect=True)
def test_a_tokenizer_without_the_mask_token_is_refused(request: pytest.FixtureRequest, copy: Path) -> None:
    text = (copy / "tokenizer.json").read_text(encoding="utf-8")
    family = load_fixture(family_of(request))
    mask = family.tokenizer.id_to_token(family.diffusion_config.mask_token_id or 0)
    assert mask
    (copy / "tokenizer.json").write_text(text.replace(json.dumps(mask), '"<other>"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"m/tokenizer\.json: the mask token .* is missing"):
        load_fixture(family_of(request), copy)


@pytest.mark.parametrize("copy", ["stable-diffcoder"], indirect=True)
def test_a_diffusion_model_under_its_bases_name_is_not_run_as_the_base(copy: Path) -> None:
    """What a conversion for an ordinary loader leaves: Llama's class, and nothing that says more."""
    edit_json(copy / "config.json", architectures=["LlamaForCausalLM"], auto_map=...)
    with pytest.raises(CheckpointError, match=r"m/config\.json: .*--family seed-coder or --family stable-diffcoder"):
        load_checkpoint(str(copy), dtype=torch.float32, device=CPU)
    named = load_checkpoint(str(copy), dtype=torch.float32, device=CPU, family="stable-diffcoder")
    assert named.diffusion_config.attention is AttentionPattern.BLOCK_CAUSAL
    base = load_checkpoint(str(copy), dtype=torch.float32, device=CPU, family="seed-coder")
    assert base.diffusion_config.attention is AttentionPattern.CAUSAL_CONTEXT


def test_a_gguf_file_with_a_mask_token_must_be_named(tmp_path: Path) -> None:
    """Such files circulate; read as Llama they give nonsense."""
    seed = ("<[MASK_TOKEN]>", "<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>", *SPECIALS[:1])
    example = save_gguf(tmp_path / "m.gguf", "llama", specials=seed)
    with pytest.raises(CheckpointError, match=r"m\.gguf: .*--family seed-coder or --family stable-diffcoder"):
        load_checkpoint(str(example.path), dtype=torch.float32, device=CPU)
    found = load_checkpoint(str(example.path), dtype=torch.float32, device=CPU, family="stable-diffcoder")
    assert (found.diffusion_config.mask_token_id, found.diffusion_config.block_size) == (256, 4)
