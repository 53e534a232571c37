"""The default model out of its real file."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint
from diffusion_core.checkpoints.store import locate, read_receipt
from diffusion_core.config import DEFAULT_MODEL
from diffusion_core.prompts import QWEN_STOP_TOKENS

pytestmark = pytest.mark.real_model
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(DEFAULT_MODEL, dtype=torch.bfloat16, device=torch.device("cpu"))


def test_special_tokens_are_single_ids_and_end_an_answer(checkpoint: Checkpoint) -> None:
    for name in QWEN_STOP_TOKENS:
        ids = checkpoint.tokenizer.encode(name, add_special_tokens=False).ids
        assert ids == [checkpoint.tokenizer.token_to_id(name)]
        assert ids[0] in checkpoint.diffusion_config.stop_token_ids
    assert checkpoint.tokenizer.token_to_id("<|endoftext|>") == 151643
    assert checkpoint.tokenizer.token_to_id("<|fim_prefix|>") == 151659
    assert checkpoint.diffusion_config.banned_token_ids == tuple(range(151665, 151936))


def test_code_survives_the_tokenizer(checkpoint: Checkpoint) -> None:
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "diffusion_core").rglob("*.py"))]
    sources += ["\tif a:\r\n\t\treturn 'ß🙂\u2028'\n\n\n", "e\u0301 vs é", "<|fim_middle|>", "   ", ""]
    checkpoint.tokenizer.encode_special_tokens = True
    try:
        for text in sources:
            ids = checkpoint.tokenizer.encode(text, add_special_tokens=False).ids
            assert checkpoint.tokenizer.decode(ids, skip_special_tokens=False) == text
            assert not any(token >= 151643 for token in ids)
    finally:
        checkpoint.tokenizer.encode_special_tokens = False


def test_the_tokenizer_equals_the_one_transformers_makes_of_the_file(checkpoint: Checkpoint) -> None:
    from transformers import AutoTokenizer

    folder = locate(DEFAULT_MODEL)
    reference = AutoTokenizer.from_pretrained(str(folder), gguf_file=read_receipt(folder).file)
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "diffusion_core").rglob("*.py"))[:20]]
    texts.append("<|im_start|>user\nSay 12345 größe's\n\n<|im_end|>\n<|fim_prefix|>  \t x")
    for text in texts:
        assert checkpoint.tokenizer.encode(text, add_special_tokens=False).ids == reference.encode(text)


def test_weights_equal_those_transformers_reads_from_the_file(checkpoint: Checkpoint) -> None:
    import gguf

    folder = locate(DEFAULT_MODEL)
    reader = gguf.GGUFReader(folder / read_receipt(folder).file)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    state = checkpoint.model.state_dict()
    for name, target, rows in (
        ("blk.3.attn_q.weight", "layers.3.attention.qkv_proj.weight", slice(0, 896)),
        ("blk.3.attn_v.weight", "layers.3.attention.qkv_proj.weight", slice(1024, 1152)),
        ("blk.0.ffn_down.weight", "layers.0.mlp.down_proj.weight", slice(None)),
        ("blk.23.ffn_up.weight", "layers.23.mlp.gate_up_proj.weight", slice(4864, None)),
    ):
        tensor = stored[name]
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(state[target][rows], values.to(torch.bfloat16)), name


def test_a_second_start_is_fast(checkpoint: Checkpoint) -> None:
    script = (
        "import torch\n"
        "from diffusion_core.checkpoints.load import load_checkpoint\n"
        f"load_checkpoint({DEFAULT_MODEL!r}, dtype=torch.bfloat16, device=torch.device('cpu'))\n"
        "import sys; assert 'transformers' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Time of the processor, not of the clock: tests run side by side. Reading the GGUF file anew takes many times this.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 8.0
