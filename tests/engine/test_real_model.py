"""The default checkpoint itself: exactness against transformers, and what typing and editing cost."""

from __future__ import annotations

import dataclasses
import gc
import gzip
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from bench.reference_model import load_reference

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.loaded_model import LoadedModel, assemble
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.model.masks import causal
from diffusion_core.requests import (
    CompletionRequest,
    DecodingParams,
    EditRequest,
    FinishReason,
    Policy,
    Result,
    Snippet,
)

pytestmark = pytest.mark.real_model

EVAL_DATA = Path(os.environ.get("UNMASK_EVAL_DATA") or Path(__file__).parents[3] / "shared" / "data")

CODE = '''
class Stack:
    """A last-in, first-out list."""

    def __init__(self) -> None:
        self._items: list[int] = []

    def push(self, item: int) -> None:
        self._items.append(item)

    def pop(self) -> int:
        if not self._items:
            raise IndexError("pop from an empty stack")
        return self._items.pop()

    def __len__(self) -> int:
        return len(self._items)
'''


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    """Twenty pieces of code: of the evaluation set where it is at hand, else of the standard library."""
    file = EVAL_DATA / "HumanEval-SingleLineInfilling.dev.jsonl.gz"
    if file.exists():
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            items = [json.loads(line) for line in lines]
        return [item["prompt"] for item in items[:: len(items) // 20]][:20]
    # From their beginnings: where a text begins in the middle of a line, float32 itself is off by some 1e-2.
    modules = sorted(Path(json.__file__).parent.parent.glob("*.py"))
    return [file.read_text(encoding="utf-8")[:700] for file in modules[:: len(modules) // 20]][:20]


@pytest.fixture(scope="module")
def float32() -> LoadedModel:
    checkpoint = load_checkpoint(DEFAULT_MODEL, dtype=torch.float32, device=torch.device("cpu"))
    return assemble(checkpoint, EngineConfig())


@pytest.fixture
async def client() -> AsyncIterator[AsyncEngine]:
    made = AsyncEngine(EngineConfig(edit_model=DEFAULT_MODEL))
    made.start()
    yield made
    await made.aclose()
    del made
    gc.collect()  # an engine is part of cycles, and gigabytes do not make the collector come any sooner


def test_logits_equal_transformers(float32: LoadedModel, prompts: list[str]) -> None:
    model = float32.denoiser.model
    reference = load_reference(model)
    worst = 0.0
    for prompt in prompts:
        ids = torch.tensor([float32.encoder.encode_text(prompt)])
        with torch.inference_mode():
            ours = model.logits(model(ids, torch.arange(ids.shape[1])[None], causal(ids.shape[1])))
            theirs = reference(ids).logits
        worst = max(worst, float((ours - theirs).abs().max()))
        assert (ours.argmax(-1) == theirs.argmax(-1)).all()
    print(f"largest difference of a logit over {len(prompts)} prompts: {worst:.2e}")
    assert worst <= 1e-3


async def test_verified_gives_the_text_of_autoregressive(client: AsyncEngine, prompts: list[str]) -> None:
    for prompt in prompts[:4]:
        texts = set()
        for policy in (Policy.AUTOREGRESSIVE, Policy.VERIFIED):
            request = CompletionRequest(prefix=prompt, language="python", max_tokens=24)
            answer = await client.complete(
                CompletionRequest(
                    prefix=request.prefix, max_tokens=24, decoding=DecodingParams(policy=policy), language="python"
                )
            )
            texts.add(answer.text)
        assert len(texts) == 1


async def test_typing_forty_characters_computes_only_new_tokens(client: AsyncEngine) -> None:
    context = CODE * 4  # some 400 tokens
    typed = "\n    def peek(self) -> int:\n        return self._items[-1]"[:41]
    computed = []
    for end in range(1, len(typed)):
        request = CompletionRequest(prefix=context + typed[:end], suffix="\n", max_tokens=4, language="python")
        result = await client.complete(request)
        computed.append(result.num_computed_tokens)
    print(f"prompt tokens {result.num_prompt_tokens}; computed per typed character: {computed}")
    assert result.num_prompt_tokens >= 400
    # A typed character may merge with those before it into other tokens: a few are computed again, never the context.
    assert max(computed[1:]) <= 8
    assert sum(computed[1:]) / len(computed[1:]) <= 3


async def test_a_completion_of_the_default_model_is_right(client: AsyncEngine) -> None:
    head, tail = CODE.split("        self._items.append(item)")
    result = await client.complete(
        CompletionRequest(prefix=head, suffix=tail, language="python", single_line=True, path="stack.py")
    )
    assert result.text.strip() == "self._items.append(item)"
    assert result.finish_reason in (FinishReason.LINE, FinishReason.STOP)


async def test_an_edit_drafts_from_its_selection(client: AsyncEngine) -> None:
    request = EditRequest(selection=CODE, instruction="Rename the class Stack to IntStack.", language="python")
    result = [item async for item in client.edit(request)][-1]
    assert isinstance(result, Result)
    assert result.finish_reason is FinishReason.STOP
    assert result.text.replace("IntStack", "Stack").strip() == CODE.strip()
    assert result.tokens_per_forward >= 8


async def test_the_text_around_a_selection_is_not_copied_into_the_answer(client: AsyncEngine) -> None:
    before, after = CODE.split("    def pop(self) -> int:\n")
    selection, rest = after.split("\n    def __len__")
    request = EditRequest(
        before=before,
        selection="    def pop(self) -> int:\n" + selection,
        after="\n    def __len__" + rest,
        instruction="Rename the method pop to take.",
        language="python",
    )
    result = [item async for item in client.edit(request)][-1]
    assert isinstance(result, Result)
    assert "class Stack" not in result.text
    assert "__len__" not in result.text


async def test_alternatives_are_real_choices_and_cost_no_prompt(client: AsyncEngine) -> None:
    request = CompletionRequest(prefix=f"{CODE}\n    def peek(self) -> int:\n        ", suffix="\n", language="python")
    plain = await client.complete(request)
    result = await client.complete(dataclasses.replace(request, num_alternatives=3, id="again"))
    assert result.text == plain.text
    texts = [result.text, *result.alternatives]
    assert len({text.strip() for text in texts}) == 4
    assert any("_items" in text for text in result.alternatives)
    assert result.num_computed_tokens == 1


async def test_a_declaration_of_another_file_is_used(client: AsyncEngine) -> None:
    """A name that no model can know: it is read in the repository format, and only then written."""
    snippet = Snippet(
        path="geo/shapes.py", text="class Circle: ...\n    def circumference_in_furlongs(self) -> float: ..."
    )
    request = CompletionRequest(
        prefix="from geo.shapes import Circle\n\nc = Circle(1)\nc.circumference",
        suffix="()\n", language="python", path="main.py", repository="geo", single_line=True,
    )  # fmt: skip
    with_it = await client.complete(dataclasses.replace(request, snippets=(snippet,)))
    assert with_it.text.startswith("_in_furlongs")
    assert "furlongs" not in (await client.complete(request)).text
