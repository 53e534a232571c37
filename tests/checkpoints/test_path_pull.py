"""Pulling from a path, and finding checkpoints by name or path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers.tiny_checkpoints import save_gguf, save_hf_folder, tiny_model

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.checkpoints.pull import pull
from diffusion_core.checkpoints.registry import parse_registry, registry
from diffusion_core.checkpoints.store import downloaded_names, is_downloaded, locate
from diffusion_core.config import DEFAULT_EDIT_MODEL, DEFAULT_MODEL
from diffusion_core.errors import CheckpointError
from diffusion_core.prompts import prompt_format

CPU = torch.device("cpu")


def test_a_file_is_copied_and_loads_by_its_new_name(tmp_path: Path) -> None:
    example = save_gguf(tmp_path / "original.gguf", "llama")
    seen: list[int] = []
    folder = pull("my-model", source="path", path=example.path, progress=lambda done, *_: seen.append(done))
    assert seen[-1] == example.path.stat().st_size
    example.path.unlink()
    assert downloaded_names() == ["my-model"]
    assert locate("my-model") == folder
    assert load_checkpoint("my-model", dtype=torch.float32, device=CPU).name == "my-model"


def test_a_hugging_face_folder_is_copied_and_loads(tmp_path: Path) -> None:
    original = save_hf_folder(tmp_path / "hf", tiny_model("qwen3"), num_shards=3)
    pull("sharded", source="path", path=original)
    shutil.rmtree(original)
    assert load_checkpoint("sharded", dtype=torch.float32, device=CPU).model_config.qk_norm


def test_a_registry_name_takes_no_other_file(tmp_path: Path) -> None:
    example = save_gguf(tmp_path / "original.gguf", "qwen2")
    with pytest.raises(CheckpointError, match=r"is not the checkpoint .*: sha256 \w{64}, expected 1d9614638d18"):
        pull(DEFAULT_MODEL, source="path", path=example.path)
    assert not is_downloaded(DEFAULT_MODEL)
    assert not list((tmp_path / "cache" / "checkpoints").iterdir())


def test_what_is_no_checkpoint_is_refused_with_the_way_out(tmp_path: Path) -> None:
    pickled = tmp_path / "pytorch_model.bin"
    pickled.write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle: .* save the model as safetensors"):
        pull("x", source="path", path=pickled)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is a pickle"):
        pull("x", source="path", path=tmp_path)
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.gguf is no GGUF file"):
        pull("x", source="path", path=tmp_path / "text.gguf")
    with pytest.raises(CheckpointError, match="does not exist"):
        pull("x", source="path", path=tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no \*\.safetensors file"):
        pull("x", source="path", path=tmp_path / "empty")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "UPPER", "x" * 81])
def test_names_that_could_leave_the_cache_are_refused(tmp_path: Path, name: str) -> None:
    example = save_gguf(tmp_path / "original.gguf", "qwen2")
    with pytest.raises(CheckpointError, match="cannot name a checkpoint"):
        pull(name, source="path", path=example.path)


def test_unknown_names_list_the_known_ones_and_absent_ones_name_the_command() -> None:
    with pytest.raises(CheckpointError, match=r"model 'gpt-9' is unknown: known are .*qwen2\.5-coder-0\.5b, qwen"):
        locate("gpt-9")
    with pytest.raises(CheckpointError, match=rf"is not downloaded: run `unmask pull {DEFAULT_MODEL}`"):
        locate(DEFAULT_MODEL)
    with pytest.raises(CheckpointError, match="does not exist"):
        locate("./nowhere/model.gguf")
    assert not is_downloaded("../../etc")


def test_bytes_changed_after_the_pull_are_found_before_the_first_load(tmp_path: Path) -> None:
    example = save_gguf(tmp_path / "original.gguf", "qwen2")
    path = pull("mine", source="path", path=example.path) / "original.gguf"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"original\.gguf is damaged: sha256 \w{64}, expected \w{64}"):
        load_checkpoint("mine", dtype=torch.float32, device=CPU)


def test_the_default_models_are_in_the_registry_with_known_prompt_formats() -> None:
    entries = registry()
    assert entries[DEFAULT_MODEL].task == "complete"
    assert entries[DEFAULT_EDIT_MODEL].task == "edit"
    for entry in entries.values():
        if entry.diffusion is not None:
            assert entry.diffusion.fim_layout in prompt_format(entry.prompt_format).fim_layouts
        assert prompt_format(entry.prompt_format)
        assert entry.licence
        assert entry.sources
        for sha256 in entry.known_hashes:
            assert len(sha256) == 64


def test_a_registry_whose_parts_do_not_add_up_is_refused() -> None:
    from helpers.part_wheels import registry_text

    text = registry_text([b"abc", b"de"]).replace("size_bytes = 5", "size_bytes = 6")
    with pytest.raises(CheckpointError, match="the parts make 5 bytes, size_bytes is 6"):
        parse_registry(text)
