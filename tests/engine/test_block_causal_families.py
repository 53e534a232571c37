"""Completions and edits by block-causal families through the engine: fill-in-the-middle where it was trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.family_fixtures import fixture_folder, load_fixture
from tokenizers import Tokenizer, processors

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.prompt_tokens import PromptEncoder
from diffusion_core.errors import CheckpointError
from diffusion_core.requests import CompletionRequest, DecodingParams, EditRequest, Policy, Result

PREFIX, SUFFIX = "def add(a, b):\n    ", "\n    return total\n"


@contextmanager
def engine_of(family: str) -> Iterator[Engine]:
    named = family if family.startswith("a2d-") else "auto"
    folder = str(fixture_folder(family))
    engine = Engine(EngineConfig(model=folder, family=named, dtype="float32", max_context_tokens=512))
    engine.start()
    try:
        yield engine
    finally:
        engine.close()


def complete(engine: Engine, prefix: str = PREFIX, suffix: str = SUFFIX, policy: Policy = Policy.AUTO) -> Result:
    request = CompletionRequest(
        prefix=prefix, suffix=suffix, language="python", max_tokens=12, stop_at_scope=False,
        decoding=DecodingParams(policy=policy),
    )  # fmt: skip
    return engine.submit(request).future.result(timeout=60)


@pytest.mark.parametrize("family", ["stable-diffcoder", "seed-coder"])
def test_the_suffix_stands_first_in_the_prompt(family: str) -> None:
    checkpoint = load_fixture(family)
    encoder = PromptEncoder(checkpoint.tokenizer, checkpoint.diffusion_config, 512)
    tokens = encoder.encode_completion(CompletionRequest(prefix=PREFIX, suffix=SUFFIX, language="python"), 16).tokens
    shown = checkpoint.tokenizer.decode(tokens, skip_special_tokens=False)
    assert shown == f"<[fim-suffix]>{SUFFIX}<[fim-prefix]>{PREFIX}<[fim-middle]>"
    marks = [checkpoint.tokenizer.token_to_id(f"<[fim-{name}]>") for name in ("suffix", "prefix", "middle")]
    assert [token for token in tokens if token in marks] == marks
    written = "x = '<[fim-middle]>'"
    assert marks[2] not in encoder.encode_text(written), "special tokens in user code stay text"


def test_a_begin_token_stands_where_the_tokenizer_puts_one() -> None:
    checkpoint = load_fixture("stable-diffcoder")
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.to_str())
    begin = "<[begin\u2581of\u2581sentence]>"
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 0)])
    encoder = PromptEncoder(tokenizer, checkpoint.diffusion_config, 512)
    request = CompletionRequest(prefix=PREFIX, suffix=SUFFIX)
    assert encoder.encode_completion(request, 16).tokens[:2] == [0, tokenizer.token_to_id("<[fim-suffix]>")]


def test_stable_diffcoder_fills_in_the_middle_whatever_was_asked_before() -> None:
    """The blocks lie on an absolute grid: reused keys end at it, and the text is that of a fresh engine."""
    with engine_of("stable-diffcoder") as engine:
        assert complete(engine).policy == "confidence"
        typed = [PREFIX + "total = "[:length] for length in range(1, 9)]
        after = [complete(engine, prefix) for prefix in typed]
        assert any(result.num_reused_tokens for result in after)
        assert any(result.text for result in after)
        assert all(result.num_reused_tokens % 4 == 0 for result in after)
    for prefix, result in zip(typed, after, strict=True):
        with engine_of("stable-diffcoder") as engine:
            fresh = complete(engine, prefix)
        assert fresh.num_reused_tokens == 0
        assert fresh.text == result.text


def test_the_base_of_stable_diffcoder_is_decoded_by_verified() -> None:
    with engine_of("seed-coder") as engine:
        result = complete(engine)
        assert result.policy == "verified"
        assert result.text == complete(engine, policy=Policy.AUTOREGRESSIVE).text
        with pytest.raises(CheckpointError, match="not trained for them"):
            complete(engine, policy=Policy.CONFIDENCE)


@pytest.mark.parametrize("family", ["sdar", "fast-dllm-v2", "a2d-qwen2-bd3lm", "a2d-qwen3-bd3lm"])
def test_chat_families_continue_and_edit_and_say_that_they_cannot_infill(family: str) -> None:
    with engine_of(family) as engine:
        with pytest.raises(CheckpointError, match="filling in the middle is not supported by this model"):
            complete(engine)
        ended = complete(engine, suffix="\n")
        assert (ended.policy, ended.num_tokens) == ("confidence", 12)
        with pytest.raises(CheckpointError, match="policy verified needs a checkpoint whose clean path is causal"):
            complete(engine, suffix="", policy=Policy.VERIFIED)
        edit = EditRequest(selection="x = 1\n", instruction="rename x", language="python", max_tokens=8)
        assert engine.submit(edit).future.result(timeout=60).num_tokens <= 8


def test_edits_are_asked_in_the_turns_of_the_family() -> None:
    checkpoint = load_fixture("stable-diffcoder")
    encoder = PromptEncoder(checkpoint.tokenizer, checkpoint.diffusion_config, 2048)
    request = EditRequest(selection="x = 1\n", instruction="rename x", language="python")
    shown = checkpoint.tokenizer.decode(encoder.encode_edit(request, 64).tokens, skip_special_tokens=False)
    begin, end = "<[begin\u2581of\u2581sentence]>", "<[end\u2581of\u2581sentence]>"
    assert shown.startswith(f"{begin}system\n")
    assert f"\n\n{end}{begin}user\nCode:\n```python\nx = 1\n```" in shown
    assert shown.endswith(f"{end}{begin}assistant\n```python\n")


def test_the_engine_takes_the_family_by_name(tmp_path: Path) -> None:
    """A folder that only says Llama: the configuration says what it is."""
    folder = tmp_path / "m"
    folder.mkdir()
    for path in fixture_folder("stable-diffcoder").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    values = json.loads((folder / "config.json").read_text()) | {"architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="--family stable-diffcoder"):
        load_checkpoint(str(folder), dtype=torch.float32, device=torch.device("cpu"))
    engine = Engine(EngineConfig(model=str(folder), family="stable-diffcoder", dtype="float32"))
    engine.start()
    try:
        assert complete(engine).policy == "confidence"
    finally:
        engine.close()
