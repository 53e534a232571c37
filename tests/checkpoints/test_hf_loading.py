"""Hugging Face folders load into the Transformer with the same logits as transformers; what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_checkpoints import (
    FAMILIES,
    LLAMA3_ROPE,
    our_logits,
    random_ids,
    reference_logits,
    save_hf_folder,
    tiny_model,
    tiny_tokenizer,
)
from safetensors.torch import load_file, save_file

from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import AttentionPattern, DiffusionConfig, DrafterKind, LogitAlignment, write_config


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Checkpoint:
    return load_checkpoint(str(folder), dtype=dtype, device=torch.device("cpu"))


def edit_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def edit_tensors(path: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(path) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize("tied", [False, True])
def test_logits_equal_those_of_transformers(tmp_path: Path, family: str, num_shards: int, tied: bool) -> None:
    model = tiny_model(family, tie_word_embeddings=tied)
    folder = save_hf_folder(tmp_path / "m", model, num_shards=num_shards)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (num_shards > 1)
    checkpoint = load(folder)
    assert checkpoint.model_config.tie_word_embeddings == tied
    ids = random_ids()
    torch.testing.assert_close(our_logits(checkpoint.model, ids), reference_logits(model, ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rope", [{"rope_type": "linear", "factor": 2.0}, LLAMA3_ROPE], ids=["linear", "llama3"])
def test_rope_scaling_equals_that_of_transformers(tmp_path: Path, rope: dict[str, Any]) -> None:
    model = tiny_model("llama", rope_parameters={"rope_theta": 5000.0, **rope})
    checkpoint = load(save_hf_folder(tmp_path / "m", model))
    assert checkpoint.model_config.rope_theta == 5000.0
    ids = random_ids(300)
    torch.testing.assert_close(our_logits(checkpoint.model, ids), reference_logits(model, ids), rtol=1e-3, atol=1e-3)


def test_the_configuration_of_transformers_4_means_the_same(tmp_path: Path) -> None:
    model = tiny_model("llama", rope_parameters={"rope_theta": 5000.0, **LLAMA3_ROPE})
    new, old = save_hf_folder(tmp_path / "new", model), save_hf_folder(tmp_path / "old", model)
    scaling = {"type": "llama3"} | {key: value for key, value in LLAMA3_ROPE.items() if key != "rope_type"}
    edit_json(old / "config.json", rope_parameters=..., rope_theta=5000.0, rope_scaling=scaling)
    assert load(old).model_config == load(new).model_config


def test_bfloat16_weights_arrive_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model("qwen2").bfloat16()
    checkpoint = load(save_hf_folder(tmp_path / "m", model), torch.bfloat16)
    state, ours = model.state_dict(), checkpoint.model.state_dict()
    assert torch.equal(ours["layers.1.mlp.gate_up_proj.weight"][:96], state["model.layers.1.mlp.gate_proj.weight"])
    assert torch.equal(ours["layers.0.attention.qkv_proj.bias"][64:96], state["model.layers.0.self_attn.k_proj.bias"])
    assert torch.equal(ours["lm_head.weight"], state["lm_head.weight"])


def test_without_a_diffusion_config_the_vocabulary_decides_the_prompt_format(tmp_path: Path) -> None:
    with_markers = load(save_hf_folder(tmp_path / "a", tiny_model("qwen2"))).diffusion_config
    assert with_markers.prompt_format == "qwen2.5-coder/1"
    plain = save_hf_folder(tmp_path / "qwen2.5-coder", tiny_model("qwen2"), tokenizer=tiny_tokenizer(("<eos>",)))
    config = load(plain).diffusion_config
    assert config.prompt_format == "plain/1"
    assert config.stop_token_ids == (256,), "the end of text of config.json"
    assert (config.alignment, config.attention) == (LogitAlignment.SHIFTED, AttentionPattern.CAUSAL_CONTEXT)
    assert config.drafter is DrafterKind.NONE


def test_a_diffusion_config_in_the_folder_wins(tmp_path: Path) -> None:
    folder = save_hf_folder(tmp_path / "m", tiny_model("llama"))
    given = DiffusionConfig(
        prompt_format="plain/1",
        alignment=LogitAlignment.SAME_POSITION,
        attention=AttentionPattern.BLOCK_CAUSAL,
        drafter=DrafterKind.MODEL,
        mask_token_id=5,
        block_size=4,
        stop_token_ids=(2,),
    )
    write_config(given, folder / "diffusion_config.json")
    found = load(folder).diffusion_config
    assert (found.attention, found.block_size, found.mask_token_id) == (AttentionPattern.BLOCK_CAUSAL, 4, 5)
    assert found.stop_token_ids == (2,)
    assert 5 in found.banned_token_ids, "a mask is never an answer"
    write_config(DiffusionConfig(prompt_format="plain/1", block_size=8), folder / "diffusion_config.json")
    assert load(folder).diffusion_config.block_size == 8, "an edited configuration makes a new copy"


def test_markers_flagged_as_ordinary_are_not_recognised_in_user_code(tmp_path: Path) -> None:
    folder = save_hf_folder(tmp_path / "m", tiny_model("qwen2"), tokenizer=tiny_tokenizer(special=False))
    tokenizer = load(folder).tokenizer
    assert tokenizer.encode("<|fim_middle|>", add_special_tokens=False).ids == [260]
    tokenizer.encode_special_tokens = True
    assert 260 not in tokenizer.encode("'<|fim_middle|>'", add_special_tokens=False).ids


def test_end_of_text_ids_come_from_both_configurations(tmp_path: Path) -> None:
    folder = save_hf_folder(tmp_path / "m", tiny_model("llama"), tokenizer=tiny_tokenizer(("<eos>",)))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 256]}))
    assert load(folder).diffusion_config.stop_token_ids == (7, 256)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "mamba"},
            r"model_type 'mamba' is not supported: llama, .*qwen2",
        ),
        (
            {"architectures": ["StableDiffcoderForCausalLM"]},
            r"tokenizer\.json: the mask token <\[MASK_TOKEN\]> of family stable-diffcoder is missing",
        ),
        ({"architectures": None}, "architectures None with model_type 'llama' are those of no known family.*--family"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"attention_bias": True}, "attention_bias true is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window true is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantised safetensors are not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2}}, "rope_type 'yarn' is not supported"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2}}, "key low_freq_factor is missing"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"hidden_size": "64"}, "hidden_size is '64', int expected"),
        ({"num_hidden_layers": ...}, "key num_hidden_layers is missing"),
        ({"num_key_value_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"eos_token_id": "x"}, "eos_token_id is 'x'"),
        ({"vocab_size": 250}, r"embed_tokens\.weight has shape \[288, 64\], \[250, 64\] expected"),
    ],
)
def test_a_configuration_that_is_not_supported_is_explained(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = save_hf_folder(tmp_path / "m", tiny_model("llama"))
    edit_json(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    folder = save_hf_folder(tmp_path / "m", tiny_model("qwen2"))
    path = folder / "model.safetensors"
    original = path.read_bytes()
    name = "model.layers.1.self_attn.k_proj.bias"
    edit_tensors(path, **{name: None})
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: tensor {name} is missing, \[32\] expected"):
        load(folder)
    path.write_bytes(original)
    edit_tensors(path, **{name: torch.zeros(31)})
    with pytest.raises(CheckpointError, match=rf"tensor {name} has shape \[31\], \[32\] expected"):
        load(folder)
    path.write_bytes(original)
    edit_tensors(path, **{"model.layers.1.self_attn.o_proj.bias": torch.zeros(64)})
    with pytest.raises(CheckpointError, match=r"tensor model\.layers\.1\.self_attn\.o_proj\.bias is unexpected"):
        load(folder)
    path.write_bytes(original)
    edit_tensors(path, **{name: torch.zeros(32, dtype=torch.int32)})
    with pytest.raises(CheckpointError, match=rf"tensor {name} has type I32, supported are F32, F16, BF16"):
        load(folder)


def test_missing_truncated_and_wrong_shards_are_named(tmp_path: Path) -> None:
    folder = save_hf_folder(tmp_path / "m", tiny_model("qwen2"), num_shards=3)
    index = folder / "model.safetensors.index.json"
    shards = sorted(folder.glob("*.safetensors"))
    content, listing = shards[-1].read_bytes(), index.read_text()
    shards[-1].write_bytes(content[:-8])
    with pytest.raises(CheckpointError, match=rf"{shards[-1].name} is truncated: tensor .* ends at byte"):
        load(folder)
    shards[-1].write_bytes(content[:20])
    with pytest.raises(CheckpointError, match=rf"{shards[-1].name} is damaged"):
        load(folder)
    shards[-1].unlink()
    with pytest.raises(CheckpointError, match=rf"{shards[-1].name} is missing: model\.safetensors\.index"):
        load(folder)
    shards[-1].write_bytes(content)
    values = json.loads(listing)
    values["weight_map"]["model.norm.weight"] = shards[0].name
    index.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"{shards[0].name}: tensor model\.norm\.weight is missing"):
        load(folder)
    values["weight_map"]["model.norm.weight"] = "../../outside.safetensors"
    index.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="no safetensors file of this folder"):
        load(folder)
    index.write_text("{")
    with pytest.raises(CheckpointError, match=r"index\.json cannot be read"):
        load(folder)


def test_a_head_that_differs_from_the_embedding_it_should_be_tied_to_is_refused(tmp_path: Path) -> None:
    folder = save_hf_folder(tmp_path / "m", tiny_model("qwen2", tie_word_embeddings=True))
    path = folder / "model.safetensors"
    embedding = load_file(path)["model.embed_tokens.weight"]
    edit_tensors(path, **{"lm_head.weight": embedding.clone()})
    assert load(folder).model_config.tie_word_embeddings
    edit_tensors(path, **{"lm_head.weight": embedding + 1})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        load(folder)


def test_missing_and_damaged_records_are_named(tmp_path: Path) -> None:
    folder = save_hf_folder(tmp_path / "m", tiny_model("qwen2"))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json"):
        load(folder)
    tiny_tokenizer(tuple(f"<t{number}>" for number in range(40))).save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="tokenizer has the id 295, the model's vocabulary ends at 287"):
        load(folder)


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    folder = save_hf_folder(tmp_path / "m", tiny_model("qwen2"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is a pickle: such files can run code"):
        load(folder)
