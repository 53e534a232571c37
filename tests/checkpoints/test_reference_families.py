"""Every family's tiny checkpoint, written by its reference code, gives the reference's logits and comes back whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.family_fixtures import FOLDER, fixture_folder, full_logits, load_fixture, read_golden
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from diffusion_core.checkpoints.export import export_folder
from diffusion_core.checkpoints.families.recognise import find_family
from diffusion_core.model.masks import block_causal

FAMILIES = (
    "stable-diffcoder", "sdar", "fast-dllm-v2", "a2d-qwen2-bd3lm", "a2d-qwen3-bd3lm", "seed-coder", "qwen2", "qwen3",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_the_reference_code(family: str) -> None:
    checkpoint = load_fixture(family)
    for ids, expected in read_golden(family).logits:
        torch.testing.assert_close(full_logits(checkpoint, ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_round_trip_gives_the_reference_its_own_tensors_back(tmp_path: Path, family: str) -> None:
    """Bit for bit, under its own names: whatever the reference code computes from them is the same."""
    original = fixture_folder(family)
    values = json.loads((original / "config.json").read_text())
    checkpoint = load_fixture(family)
    export_folder(tmp_path / "m", checkpoint.model, checkpoint.tokenizer, find_family(family), values)
    before, after = load_file(original / "model.safetensors"), load_file(tmp_path / "m" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "m" / "config.json").read_text()) == values
    ids, expected = read_golden(family).logits[1]
    torch.testing.assert_close(full_logits(load_fixture(family, tmp_path / "m"), ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["seed-coder", "qwen2", "qwen3", "stable-diffcoder"])
def test_transformers_loads_what_was_saved_with_the_same_logits(tmp_path: Path, family: str) -> None:
    values = json.loads((fixture_folder(family) / "config.json").read_text())
    checkpoint = load_fixture(family)
    export_folder(tmp_path / "m", checkpoint.model, checkpoint.tokenizer, find_family(family), values)
    # Stable-DiffCoder's own class adds a sampler to Llama's and nothing else: the block mask is given by its caller.
    loader = LlamaForCausalLM if family == "stable-diffcoder" else AutoModelForCausalLM
    model = loader.from_pretrained(tmp_path / "m", attn_implementation="eager").float().eval()
    for ids, expected in read_golden(family).logits:
        mask = None
        if family == "stable-diffcoder":
            seen = block_causal(torch.arange(len(ids)), 4)
            mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]
        with torch.no_grad():
            found = model(ids[None], attention_mask=mask).logits[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_fixtures_are_small() -> None:
    for family in FAMILIES:
        size = sum(path.stat().st_size for path in (FOLDER / family).rglob("*") if path.is_file())
        assert size < 1_000_000, family
