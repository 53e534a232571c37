"""A folder's family is told by its own markers, or by the caller; never silently that of its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffusion_core.checkpoints.families.contract import read_contract
from diffusion_core.checkpoints.families.recognise import FAMILIES, find_family, recognise
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import AttentionPattern, DrafterKind, LogitAlignment
from diffusion_core.prompts import prompt_format

PATH = Path("m") / "config.json"
SEED = {"<[fim-suffix]>": 6, "<[fim-prefix]>": 7, "<[fim-middle]>": 8}
SEED_WITH_MASK = SEED | {"<[MASK_TOKEN]>": 5}


def config(kind: str, *classes: str, **more: Any) -> dict[str, Any]:
    return {"model_type": kind, "architectures": list(classes)} | more


CASES = {
    "stable-diffcoder": (config("llama", "StableDiffcoderForCausalLM"), SEED_WITH_MASK),
    "seed-coder": (config("llama", "LlamaForCausalLM"), SEED),
    "llama": (config("llama", "LlamaForCausalLM"), {}),
    "sdar": (config("sdar", "SDARForCausalLM"), {"<|MASK|>": 9}),
    "fast-dllm-v2": (config("Fast_dLLM_Qwen", "Fast_dLLM_QwenForCausalLM", bd_size=32), {"|<MASK>|": 9}),
    "qwen2": (config("qwen2", "Qwen2ForCausalLM"), {"<|im_end|>": 3}),
    "qwen3": (config("qwen3", "Qwen3ForCausalLM"), {"<|im_end|>": 3}),
}


@pytest.mark.parametrize("name", CASES)
def test_markers_tell_the_family(name: str) -> None:
    values, vocabulary = CASES[name]
    assert recognise(PATH, values, vocabulary).name == name


def test_older_revisions_of_stable_diffcoder_are_told_by_their_code_file() -> None:
    auto_map = {"AutoModelForCausalLM": "modeling_stable_diffcoder.StableDiffcoderForCausalLM"}
    for classes in ([], ["LlamaForCausalLM"], ["SeedDiffcoderForCausalLM"]):
        values = config("llama", *classes, auto_map=auto_map)
        assert recognise(PATH, values, SEED_WITH_MASK).name == "stable-diffcoder"


def test_a_base_with_a_mask_token_must_be_named() -> None:
    values = config("llama", "LlamaForCausalLM")
    with pytest.raises(CheckpointError, match=r"<\[MASK_TOKEN\]>.*--family seed-coder or --family stable-diffcoder"):
        recognise(PATH, values, SEED_WITH_MASK)
    for name in ("seed-coder", "stable-diffcoder"):
        assert recognise(PATH, values, SEED_WITH_MASK, wanted=name).name == name
    with pytest.raises(CheckpointError, match=r"mask token <\|mask\|>, so that the family cannot be told"):
        recognise(PATH, config("qwen2", "Qwen2ForCausalLM"), {"<|mask|>": 4})


@pytest.mark.parametrize("base", ["qwen2", "qwen3"])
def test_the_two_kinds_of_tiny_a2d_must_be_named(base: str) -> None:
    values, vocabulary = config(f"a2d-{base}", f"A2DQwen{base[-1]}LMHeadModel"), {"<|mask|>": 4}
    with pytest.raises(CheckpointError, match=f"--family a2d-{base}-bd3lm"):
        recognise(PATH, values, vocabulary)
    family = recognise(PATH, values, vocabulary, wanted=f"a2d-{base}-bd3lm")
    contract = read_contract(family, PATH, values, vocabulary)
    assert contract is not None
    assert (contract.mask_token_id, contract.block_size) == (4, 32)
    assert (contract.alignment, contract.attention) == (LogitAlignment.SAME_POSITION, AttentionPattern.BLOCK_CAUSAL)


def test_another_family_than_the_wanted_one_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: model_type is 'llama', family sdar has 'sdar'"):
        recognise(PATH, config("llama", "LlamaForCausalLM"), {}, wanted="sdar")
    with pytest.raises(CheckpointError, match="family 'sdr' is unknown: known are"):
        find_family("sdr")


def test_what_no_family_shows_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: architectures \['Other'\] with model_type 'llama'"):
        recognise(PATH, config("llama", "Other"), {})
    with pytest.raises(CheckpointError, match=r"architectures.*Fast_dLLM_Qwen.*fast-dllm-v2"):
        recognise(PATH, config("Fast_dLLM_Qwen", "Fast_dLLM_QwenForCausalLM"), {})


def test_a_described_folder_needs_only_a_known_shape() -> None:
    assert recognise(PATH, config("llama", "Other"), {}, is_described=True).model_types == ("llama",)


def test_the_contract_takes_mask_and_block_from_the_files() -> None:
    family = find_family("sdar")
    contract = read_contract(family, PATH, {"block_size": 8, "mask_token_id": 9}, {"<|MASK|>": 9})
    assert contract is not None
    assert (contract.mask_token_id, contract.block_size, contract.drafter) == (9, 8, DrafterKind.MODEL)
    with pytest.raises(CheckpointError, match=r"mask_token_id is 7, but the tokenizer gives <\|MASK\|> the id 9"):
        read_contract(family, PATH, {"mask_token_id": 7}, {"<|MASK|>": 9})
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the mask token <\|MASK\|> of family sdar is missing"):
        read_contract(family, PATH, {}, {})
    with pytest.raises(CheckpointError, match="block_size is 0"):
        read_contract(family, PATH, {"block_size": 0}, {"<|MASK|>": 9})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_complete(name: str) -> None:
    family = FAMILIES[name]
    assert family.name == name
    assert family.licence
    if family.prompt_format:
        layouts = prompt_format(family.prompt_format).fim_layouts
        assert not family.fim_layout or family.fim_layout in layouts
    if family.is_diffusion:
        assert read_contract(family, PATH, {}, {family.mask_token: 4}) is not None
    else:
        assert family.attention is AttentionPattern.CAUSAL_CONTEXT
