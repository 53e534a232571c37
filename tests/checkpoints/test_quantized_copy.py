"""The copies with weights in 8 and 4 bits: written once, the same as quantising when loading, repaired when damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from helpers.tiny_checkpoints import FAMILIES, our_logits, random_ids, save_gguf, save_hf_folder, tiny_model
from helpers.tiny_models import save_tiny_checkpoint
from safetensors.torch import load_file, save_file

from diffusion_core.checkpoints import convert
from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint, save_checkpoint
from diffusion_core.checkpoints.quantized_file import WEIGHTS_FILES, load_quantized
from diffusion_core.checkpoints.tuning import TuningMetadata, save_tuning, tuning_shapes
from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.errors import CheckpointError, ConfigError
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.int4 import Int4Weight, widen
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import why_not_quantized
from diffusion_core.requests import CompletionRequest, DecodingParams, EditRequest, Policy

CPU = torch.device("cpu")
NONE, INT8, INT4 = Quantization.NONE, Quantization.INT8, Quantization.INT4
needs_kernels = pytest.mark.skipif(bool(why_not_quantized("cpu")), reason=why_not_quantized("cpu"))


def load(path: Path, dtype: torch.dtype = torch.float32, *, kind: Quantization, **more: object) -> Checkpoint:
    serve = kind is not NONE
    return load_checkpoint(str(path), dtype=dtype, device=CPU, serve=serve, quantize=kind, **more)  # type: ignore[arg-type]


def the_copy(tmp_path: Path, kind: Quantization) -> Path:
    (folder,) = (tmp_path / "cache" / "converted").glob(f"*-{kind}-*")
    return folder / WEIGHTS_FILES[kind]


@needs_kernels
@pytest.mark.parametrize("kind", [INT8, INT4])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_the_copy_is_what_quantising_the_loaded_weights_gives(
    tmp_path: Path, family: str, tied: bool, kind: Quantization
) -> None:
    source = save_hf_folder(tmp_path / "hf", tiny_model(family, tie_word_embeddings=tied))
    plain, ids = load(source, kind=NONE), random_ids()
    save_checkpoint(tmp_path / "own", plain.model, plain.tokenizer, plain.diffusion_config)
    first, second, own = load(source, kind=kind), load(source, kind=kind), load(tmp_path / "own", kind=kind)
    wanted = our_logits(own.model, ids)
    assert torch.equal(our_logits(first.model, ids), wanted)
    assert torch.equal(our_logits(second.model, ids), wanted)
    assert float((wanted - our_logits(plain.model, ids)).norm() / wanted.norm()) < (0.05 if kind is INT8 else 0.5)
    assert first.model.num_bytes == own.model.num_bytes < 0.6 * plain.model.num_bytes
    assert torch.equal(first.model.head_weight, plain.model.head_weight)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gguf_file_is_quantised_from_its_own_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2")
    checkpoint, plain = load(example.path, dtype, kind=INT8), load(example.path, kind=NONE)
    assert checkpoint.model.dtype == dtype
    stored = load_file(the_copy(tmp_path, INT8))
    weight = plain.model.state_dict()["layers.1.mlp.down_proj.weight"]
    scales = stored["layers.1.mlp.down_proj.scales"].unsqueeze(1)
    error = (stored["layers.1.mlp.down_proj.int8"] * scales - weight).abs()
    assert bool((error <= 0.501 * scales).all()), "bfloat16 does not come between"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_4_bits_are_those_of_the_files_own_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2")
    load(example.path, dtype, kind=INT4)
    plain = load(example.path, kind=NONE).model.state_dict()["layers.0.mlp.down_proj.weight"]
    stored = load_file(the_copy(tmp_path, INT4))
    groups = stored["layers.0.mlp.down_proj.groups"]
    error = (widen(Int4Weight(stored["layers.0.mlp.down_proj.int4"], groups), torch.float32) - plain).abs()
    steps = groups[..., 0].float().repeat_interleave(32, 1)
    # What is cut off at a group's ends may be further away than half a step, and is rare.
    assert float((error <= 0.51 * steps).float().mean()) > 0.9
    assert bool((error <= 2.1 * steps).all())


@needs_kernels
@pytest.mark.parametrize("kind", [INT8, INT4])
def test_a_damaged_copy_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: Quantization) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2")
    ids = random_ids()
    wanted = our_logits(load(example.path, kind=kind).model, ids)
    path = the_copy(tmp_path, kind)
    path.write_bytes(path.read_bytes()[:10_000])
    assert torch.equal(our_logits(load(example.path, kind=kind).model, ids), wanted)
    assert "made anew" in caplog.text


@needs_kernels
@pytest.mark.parametrize("kind", [INT8, INT4])
def test_damage_is_named(tmp_path: Path, kind: Quantization) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2")
    config: ModelConfig = load(example.path, kind=kind).model_config
    path = the_copy(tmp_path, kind)
    numbers, scales, stored = {INT8: ("int8", "scales", "int8"), INT4: ("int4", "groups", "uint8")}[kind]
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    name = "layers.0.attention.qkv_proj"

    def fails(changed: dict[str, torch.Tensor], match: str) -> None:
        save_file(changed, path)
        with pytest.raises(CheckpointError, match=match):
            load_quantized(path, config, torch.float32, CPU, kind)

    whole = tensors[f"{name}.{numbers}"]
    fails({k: v for k, v in tensors.items() if k != f"{name}.{scales}"}, rf"{name}\.{scales} is missing")
    fails(tensors | {f"{name}.{numbers}": whole[:4].contiguous()}, rf"qkv_proj\.{numbers} has shape")
    fails(tensors | {f"{name}.{numbers}": whole.float()}, rf"qkv_proj\.{numbers} has type F32, torch\.{stored}")
    fails(tensors | {"norm.weight": tensors["norm.weight"].bfloat16()}, r"norm\.weight has type BF16")
    fails(tensors | {f"{name}.weight": torch.zeros(1)}, r"qkv_proj\.weight is unexpected")
    path.write_bytes(struct.pack("<Q", 12) + b"no header...")
    with pytest.raises(CheckpointError, match=WEIGHTS_FILES[kind]):
        load_quantized(path, config, torch.float32, CPU, kind)


@needs_kernels
@pytest.mark.parametrize("kind", [INT8, INT4])
def test_a_tuning_is_merged_before_the_weights_are_quantised(tmp_path: Path, kind: Quantization) -> None:
    source = save_hf_folder(tmp_path / "hf", tiny_model("qwen2"))
    plain, ids = load(source, kind=NONE), random_ids()
    generator = torch.Generator().manual_seed(5)
    shapes = tuning_shapes(plain.model_config, 4)
    tensors = {name: torch.randn(s, generator=generator) * 0.1 for name, s in shapes.items()}
    save_tuning(tmp_path / "tuning", TuningMetadata(rank=4, alpha=8.0), tensors)
    tuned = load(source, kind=NONE, tuning=tmp_path / "tuning")
    save_checkpoint(tmp_path / "tuned", tuned.model, tuned.tokenizer, tuned.diffusion_config)
    found = our_logits(load(source, kind=kind, tuning=tmp_path / "tuning").model, ids)
    assert torch.equal(found, our_logits(load(tmp_path / "tuned", kind=kind).model, ids))
    assert not torch.allclose(found, our_logits(load(source, kind=kind).model, ids), atol=0.05), (
        "the tuning does something"
    )


def answers(config: EngineConfig) -> list[str]:
    """What an engine answers: with drafts verified, without, and an edit; and what it says of itself."""
    engine = Engine(config)
    engine.start()
    try:
        texts = []
        for policy in (Policy.VERIFIED, Policy.AUTOREGRESSIVE):
            for seed in range(3):
                prefix = "for i in range(10):\n    print(i)\n" * (seed + 2)
                decoding = DecodingParams(policy=policy)
                request = CompletionRequest(
                    prefix=prefix, suffix="", language="python", max_tokens=40, decoding=decoding
                )
                texts.append(engine.submit(request).future.result(timeout=60).text)
        edit = EditRequest(selection="a = 1\nb = 2\n", instruction="swap", language="python", max_tokens=12)
        texts.append(engine.submit(edit).future.result(timeout=60).text)
        return [*texts, engine.health().dtype]
    finally:
        engine.close()


@needs_kernels
@pytest.mark.parametrize("kind", [INT8, INT4])
def test_an_engine_serves_them_and_verified_equals_autoregressive(tmp_path: Path, kind: Quantization) -> None:
    base = save_tiny_checkpoint(tmp_path / "base", hidden_size=64, intermediate_size=128, head_dim=16)
    found = answers(EngineConfig(model=str(base), edit_model=str(base), dtype=kind.value, device="cpu"))
    assert found[:3] == found[3:6]
    assert any(found[:3])
    assert found[-1] == kind


def test_where_8_bits_cannot_be_used_the_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_tiny_checkpoint(tmp_path / "base")
    # What the probe says is the CPU's affair; that it is heard is ours.
    monkeypatch.setattr("diffusion_core.model.packed.why_not_eight_bits", lambda device: "this CPU has no VNNI")
    with pytest.raises(ConfigError, match=r"engine\.dtype is int8, and this CPU has no VNNI: use auto or int4"):
        Engine(EngineConfig(model=str(base), dtype="int8"))
    with pytest.raises(ConfigError, match="int8 weights cannot be used here: this CPU has no VNNI"):
        load(base, kind=INT8)


def test_copies_of_other_precisions_are_others() -> None:
    folders = {
        convert.converted_folder("0" * 64, dtype, quantize=kind)
        for dtype in (torch.float32, torch.bfloat16)
        for kind in Quantization
    }
    assert len(folders) == 6
