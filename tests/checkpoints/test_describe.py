"""What is said of a checkpoint before it is loaded: from its record, or from its own files."""

from __future__ import annotations

import pathlib
import re

import pytest
from helpers.family_fixtures import FOLDER, fixture_folder
from helpers.full_size import FULL_SIZE
from helpers.tiny_checkpoints import save_gguf
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.checkpoints.describe import describe, describe_all, describe_path
from diffusion_core.checkpoints.families.recognise import FAMILIES
from diffusion_core.checkpoints.footprint import count_parameters
from diffusion_core.checkpoints.pull import pull
from diffusion_core.checkpoints.registry import registry
from diffusion_core.errors import CheckpointError

ROOT = pathlib.Path(__file__).parents[2]
# Their files do not show it, or (the tiny Dream has DiffuCoder's padding token) show another.
NEEDS_FAMILY = ("a2d-", "open-dcoder", "dream")


def test_every_name_has_a_family_a_shape_and_a_source() -> None:
    for entry in registry().values():
        assert entry.family.name in FAMILIES and entry.shape is not None and entry.sources and entry.homepage
        stated = float(entry.parameters.removesuffix("B")) * 1e9
        assert count_parameters(entry.shape) == pytest.approx(stated, rel=0.06), entry.name
        if entry.hub is not None and not entry.hub.file:
            assert entry.index is None and entry.hub.sha256 is None and not entry.verified
        assert entry.shape.qkv_bias == entry.family.qkv_bias and entry.shape.qk_norm == entry.family.qk_norm


def test_shapes_of_the_registry_are_those_that_the_plans_are_tested_with() -> None:
    names = {"stable-diffcoder-8b": "stable-diffcoder-8b", "llada-8b": "llada-8b", "dream-7b": "qwen2.5-7b"}
    for name, shape in names.items():
        assert registry()[name].shape == FULL_SIZE[shape]
    assert registry()["qwen2.5-coder-0.5b"].shape == FULL_SIZE["qwen2.5-0.5b"]
    assert registry()["qwen2.5-coder-1.5b"].shape == FULL_SIZE["qwen2.5-1.5b"]


def test_what_is_said_to_be_verified_can_be_found() -> None:
    for found in describe_all():
        for seen in (*found.verified, *found.family_verified):
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", seen.date) and seen.what
            assert (ROOT / seen.where).is_file(), seen.where


def test_families_said_to_be_verified_have_a_fixture() -> None:
    for found in describe_all():
        assert bool(found.family_verified) == (FOLDER / found.family).is_dir(), found.family


@pytest.mark.parametrize("family", sorted(path.name for path in FOLDER.iterdir() if path.is_dir()))
def test_a_folder_says_the_same_as_its_familys_record(family: str) -> None:
    named = family if family.startswith(NEEDS_FAMILY) else "auto"
    found = describe_path(fixture_folder(family), named)
    record = FAMILIES[family]
    assert (found.family, found.licence, found.title) == (family, record.licence, record.title)
    assert found.contract is not None and found.shape is not None
    assert found.contract.is_diffusion == record.is_diffusion
    by_record = next((each for each in describe_all() if each.family == family and each.contract), None)
    if by_record is not None and record.prompt_format:
        assert by_record.fills_in_the_middle == found.fills_in_the_middle
        assert by_record.contract is not None and by_record.contract.attention == found.contract.attention


def test_own_and_gguf_checkpoints_are_described(tmp_path: pathlib.Path) -> None:
    own = describe(str(save_tiny_checkpoint(tmp_path / "own")))
    assert own.fills_in_the_middle and own.edits and own.licence == "" and own.contract.block_size == 1
    gguf = describe(str(save_gguf(tmp_path / "model.gguf", "qwen2").path))
    assert gguf.family == "qwen2" and gguf.shape.num_layers == 2 and gguf.size_bytes > 10_000


def test_a_damaged_checkpoint_is_listed_and_named_when_asked_for(tmp_path: pathlib.Path) -> None:
    folder = pull("mine", source="path", path=fixture_folder("sdar"))
    assert next(each for each in describe_all() if each.name == "mine").family == "sdar"
    (folder / "config.json").write_text("{")
    assert "cannot be read" in next(each for each in describe_all() if each.name == "mine").title
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        describe("mine")
    with pytest.raises(CheckpointError, match="unknown: known are"):
        describe("no-such-model")
