"""Loading in few bits takes little more memory than the weights do then: never the whole model in floats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import save_tiny_checkpoint, tiny_tokenizer
from safetensors.torch import save_file

from diffusion_core.checkpoints.export import reference_tensors
from diffusion_core.checkpoints.families.recognise import find_family
from diffusion_core.checkpoints.footprint import WeightForm, count_parameters, weight_bytes
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.packed import why_not_served
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.transformer import Transformer

ROOT = Path(__file__).resolve().parents[2]
# What the first pieces of work cost whatever the model: kernels, threads, pieces in flight.
ROOM = 220e6

# A process of its own, since only its highest mark tells. Anonymous memory: mapped files are the system's to drop.
LOAD = """
import sys, threading, time
import torch
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.model.quantization import Quantization

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

kind = Quantization(sys.argv[2])
warm = load_checkpoint(sys.argv[1], dtype=torch.bfloat16, device=torch.device("cpu"), serve=True, quantize=kind)
del warm
before = most = anonymous()
done = threading.Event()

def watch():
    global most
    while not done.is_set():
        most = max(most, anonymous())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
loaded = load_checkpoint(sys.argv[3], dtype=torch.bfloat16, device=torch.device("cpu"), serve=True, quantize=kind)
after = anonymous()
done.set()
watcher.join()
print(most - before, after - before)
"""


def save_large(folder: Path) -> ModelConfig:
    """A checkpoint of 206 million random parameters in Hugging Face layout, 411 MB in bfloat16."""
    config = ModelConfig(
        vocab_size=272, hidden_size=2048, intermediate_size=5632, num_layers=4, num_heads=16, num_kv_heads=16,
        head_dim=128, max_position_embeddings=512,
    )  # fmt: skip
    values = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 272, "hidden_size": 2048,
        "intermediate_size": 5632, "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 16,
        "max_position_embeddings": 512, "tie_word_embeddings": False,
    }  # fmt: skip
    tensors = reference_tensors(Transformer(config).to(torch.bfloat16), find_family("llama"))
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(values))
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return config


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
@pytest.mark.parametrize("kind", [Quantization.INT8, Quantization.INT4])
def test_the_first_load_and_later_ones_stay_near_the_weights(tmp_path: Path, kind: Quantization) -> None:
    if reason := why_not_served(kind, "cpu"):
        pytest.skip(reason)
    config = save_large(tmp_path / "hf")
    tiny = save_tiny_checkpoint(tmp_path / "tiny", hidden_size=64, head_dim=16)
    weights = weight_bytes(config, WeightForm(item_bytes=2, quantization=kind))
    in_floats = 4 * count_parameters(config)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "UNMASK_CACHE_DIR": str(tmp_path / "cache")}
    for _ in ("converts", "maps the copy"):
        command = [sys.executable, "-c", LOAD, str(tiny), kind.value, str(tmp_path / "hf")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        most, after = (int(word) for word in done.stdout.split())
        # No lower bound: where the kernels read the stored order, the weights stay a mapping.
        assert after < weights + ROOM
        assert most < weights + 2 * ROOM < in_floats
