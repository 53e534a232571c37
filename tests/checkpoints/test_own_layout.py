"""Our own layout: an exact round trip, mapped weights, a fast start, and damage that is named or repaired."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny_checkpoints import (
    FAMILIES,
    our_logits,
    random_ids,
    save_gguf,
    save_hf_folder,
    tiny_model,
)
from helpers.tiny_models import save_tiny_checkpoint, tiny_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.checkpoints.layout import build_empty
from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint, save_checkpoint
from diffusion_core.checkpoints.weights import HUGGING_FACE, plan_targets, undo_interleaving
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import DiffusionConfig, DrafterKind, ModelConfig

ROOT = Path(__file__).resolve().parents[2]


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Checkpoint:
    return load_checkpoint(str(folder), dtype=dtype, device=torch.device("cpu"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_saved_and_loaded_is_the_same(tmp_path: Path, family: str, tied: bool) -> None:
    first = load(save_hf_folder(tmp_path / "hf", tiny_model(family, tie_word_embeddings=tied)))
    config = DiffusionConfig(
        prompt_format="plain/1", drafter=DrafterKind.MODEL, mask_token_id=280, block_size=8, stop_token_ids=(1, 2)
    )
    save_checkpoint(tmp_path / "own", first.model, first.tokenizer, config)
    second = load(tmp_path / "own")
    assert second.model_config == first.model_config
    assert second.diffusion_config == config
    assert second.tokenizer.to_str() == first.tokenizer.to_str()
    ours, theirs = first.model.state_dict(), second.model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    ids = random_ids()
    assert torch.equal(our_logits(first.model, ids), our_logits(second.model, ids))


def test_saving_again_replaces_whole(tmp_path: Path) -> None:
    first, other = (load(save_hf_folder(tmp_path / f"hf{n}", tiny_model("llama", seed=n))) for n in range(2))
    for checkpoint in (first, other):
        save_checkpoint(tmp_path / "own", checkpoint.model, checkpoint.tokenizer, checkpoint.diffusion_config)
    found = load(tmp_path / "own").model.state_dict()["norm.weight"]
    assert torch.equal(found, other.model.state_dict()["norm.weight"])
    assert {path.name for path in tmp_path.glob(".*")} == set()


def test_a_save_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusion_core.checkpoints import layout

    first = load(save_hf_folder(tmp_path / "hf", tiny_model("llama")))
    save_checkpoint(tmp_path / "own", first.model, first.tokenizer, first.diffusion_config)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(layout, "write_records", fail)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "own", first.model, first.tokenizer, first.diffusion_config)
    assert load(tmp_path / "own").model_config == first.model_config
    assert {path.name for path in tmp_path.glob(".*")} == set()


def test_another_dtype_is_a_rounding_of_the_stored_one(tmp_path: Path) -> None:
    first = load(save_hf_folder(tmp_path / "hf", tiny_model("qwen3")))
    save_checkpoint(tmp_path / "own", first.model, first.tokenizer, first.diffusion_config)
    half = load(tmp_path / "own", torch.bfloat16).model
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(half.state_dict()[name], tensor.to(torch.bfloat16)), name


def test_damage_is_named(tmp_path: Path) -> None:
    first = load(save_hf_folder(tmp_path / "hf", tiny_model("llama")))
    own = tmp_path / "own"
    save_checkpoint(own, first.model, first.tokenizer, first.diffusion_config)
    weights = own / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated: tensor .* ends at byte"):
        load(own)
    weights.write_bytes(b"\xff" * 16 + content[16:])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or truncated"):
        load(own)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load(own)
    weights.write_bytes(content)
    (own / "diffusion_config.json").write_text('{"prompt_format": "plain/1", "blocksize": 3}')
    with pytest.raises(CheckpointError, match="unknown key 'blocksize'"):
        load(own)
    (own / "diffusion_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"diffusion_config\.json is missing"):
        load(own)


def test_a_tokenizer_or_ids_of_another_model_are_refused(tmp_path: Path) -> None:
    own = save_tiny_checkpoint(tmp_path / "own")
    config = own / "diffusion_config.json"
    fitting = config.read_text()
    for key, value, message in (
        ("stop_token_ids", [0, 272], r"diffusion_config\.json: stop_token_ids has 272, the model's ids are 0 to 271"),
        ("banned_token_ids", [-1], "banned_token_ids has -1"),
        ("banned_token_ids", ["7"], "banned_token_ids has '7'"),
        ("mask_token_id", 272, "mask_token_id has 272"),
    ):
        config.write_text(json.dumps(json.loads(fitting) | {key: value}))
        with pytest.raises(CheckpointError, match=message):
            load(own)
    config.write_text(json.dumps(json.loads(fitting) | {"mask_token_id": 272, "drafter": "gated_adapter"}))
    load(own)  # the adapter has its own embedding of the mask
    config.write_text(fitting)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<{n}>" for n in range(300 - tokenizer.get_vocab_size())])
    tokenizer.save(str(own / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has the id 299, the vocabulary of .* ends at 271"):
        load(own)


def test_a_damaged_converted_copy_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2")
    before = load(example.path).model.state_dict()
    (copy,) = (tmp_path / "cache" / "converted").iterdir()
    weights = copy / "model.safetensors"
    del before
    weights.write_bytes(weights.read_bytes()[:10_000])
    checkpoint = load(example.path)
    assert "made anew" in caplog.text
    ids = random_ids()
    assert our_logits(checkpoint.model, ids).isfinite().all()
    assert load(example.path).model_config == checkpoint.model_config


SECOND_START = """
import sys, torch
from diffusion_core.checkpoints.load import load_checkpoint
checkpoint = load_checkpoint(sys.argv[1], dtype=torch.float32, device=torch.device("cpu"))
maps = open("/proc/self/maps").read()
print("mapped" if "model.safetensors" in maps else "not mapped")
print(sorted({"transformers", "sympy", "gguf"} & set(sys.modules)))
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at Linux' list of mappings")
def test_a_second_start_maps_the_weights_and_imports_no_transformers(tmp_path: Path) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2")
    load(example.path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SECOND_START, str(example.path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["mapped", "[]"]


CONVERT_SLOWLY = """
import sys, time, torch
from diffusion_core.checkpoints.load import load_checkpoint
def report(done, total, what):
    print(what, flush=True)
    if sys.argv[2] == "stop" and done:
        time.sleep(60)
load_checkpoint(sys.argv[1], dtype=torch.float32, device=torch.device("cpu"), progress=report)
"""


def start_conversion(path: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CONVERT_SLOWLY, str(path), mode],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_conversion_killed_halfway_leaves_nothing_half_valid(tmp_path: Path) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2")
    process = start_conversion(example.path, "stop")
    assert process.stdout is not None
    assert process.stdout.readline() == "converting\n"
    process.kill()
    process.communicate(timeout=10)
    converted = tmp_path / "cache" / "converted"
    assert [path.name[0] for path in converted.iterdir()] == ["."], "only the draft, which no load looks at"
    load(example.path)
    assert [path.name[0] == "." for path in converted.iterdir()] == [False]


def test_two_processes_convert_once(tmp_path: Path) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2")
    processes = [start_conversion(example.path, "go") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("converting\n" in output.replace("that converts", "") for output in outputs) == 1


@given(
    heads=st.integers(1, 4), groups=st.integers(1, 4), half=st.integers(1, 4), layers=st.integers(1, 3),
    bias=st.booleans(), norm=st.booleans(), tied=st.booleans(),
)  # fmt: skip
def test_the_plan_names_exactly_the_tensors_of_the_transformer(
    heads: int, groups: int, half: int, layers: int, bias: bool, norm: bool, tied: bool
) -> None:
    config = ModelConfig(
        vocab_size=11, hidden_size=12, intermediate_size=7, num_layers=layers, num_heads=heads * groups,
        num_kv_heads=groups, head_dim=2 * half, qkv_bias=bias, qk_norm=norm, tie_word_embeddings=tied,
    )  # fmt: skip
    planned = {target.name: target.shape for target in plan_targets(config, HUGGING_FACE)}
    assert planned == {name: tuple(tensor.shape) for name, tensor in build_empty(config).state_dict().items()}


@given(heads=st.integers(1, 5), half=st.integers(1, 6), columns=st.integers(0, 3))
def test_interleaved_rows_come_back_in_order(heads: int, half: int, columns: int) -> None:
    shape = (heads * half * 2, columns) if columns else (heads * half * 2,)
    rows = torch.arange(heads * half * 2 * max(1, columns)).reshape(shape)
    stored = rows.reshape(heads, 2, half, *shape[1:]).transpose(1, 2).reshape(shape)
    assert torch.equal(undo_interleaving(stored, 2 * half), rows)
