"""While the user types an instruction, the engine reads what stands before it: the edit then computes the rest only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.errors import ContextTooLong
from diffusion_core.requests import MAX_INSTRUCTION_CHARACTERS, UNKNOWN_INSTRUCTION, EditRequest, Result, WarmRequest

INSTRUCTION = "rename total to sum"
# A byte is a token here. What follows the instruction in the prompt, and the seam before it.
TAIL = len("\n\nReply with the whole edited code in one code block, nothing else. Keep everything that the instruction "
           "does not ask to change.\nassistant\n```\n") + 5  # fmt: skip


@pytest.fixture(scope="module", params=["one model", "an edit model of its own"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    model = save_tiny_checkpoint(folder / "model")
    return model, model if request.param == "one model" else save_tiny_checkpoint(folder / "edits", seed=3)


@pytest.fixture
def engine(models: tuple[Path, Path]) -> Iterator[Engine]:
    model, edit_model = models
    config = EngineConfig(model=str(model), edit_model=str(edit_model), dtype="float32", max_context_tokens=4096)
    made = Engine(config)
    made.start()
    yield made
    made.close()


def edit(instruction: str, **changes: object) -> EditRequest:
    fields: dict[str, object] = {"selection": "total = 1\n" * 12, "before": "import os\n" * 20, "after": "end\n" * 9}
    return EditRequest(instruction=instruction, max_tokens=8, **(fields | changes))  # type: ignore[arg-type]


def run(engine: Engine, request: EditRequest) -> Result:
    return engine.submit(request).future.result(timeout=20)


def warm(engine: Engine, request: EditRequest) -> None:
    engine.submit(WarmRequest(edit=request)).future.result(timeout=20)


@pytest.mark.parametrize(
    ("known", "num_new"),
    [(UNKNOWN_INSTRUCTION, len(INSTRUCTION)), (INSTRUCTION[:9], len(INSTRUCTION) - 9), (INSTRUCTION + " ", 0)],
)
def test_an_edit_computes_only_what_the_warm_up_could_not_know(engine: Engine, known: str, num_new: int) -> None:
    warm(engine, edit(known))
    result = run(engine, edit(INSTRUCTION))
    assert num_new < result.num_computed_tokens <= num_new + TAIL
    assert result.num_reused_tokens > 300


def test_a_warm_up_computes_nothing_behind_the_instruction(engine: Engine) -> None:
    job = engine.submit(WarmRequest(edit=edit(INSTRUCTION)))
    job.future.result(timeout=20)
    assert job.sequence is not None and job.model is not None
    read = job.model.tokenizer.decode([int(token) for token in job.sequence.tokens], skip_special_tokens=False)
    assert read.endswith(f"Instruction: {INSTRUCTION}")


def test_the_text_is_the_same_with_and_without_a_warm_up(engine: Engine) -> None:
    cold = run(engine, edit(INSTRUCTION, after=""))
    warm(engine, edit(UNKNOWN_INSTRUCTION))
    assert run(engine, edit(INSTRUCTION)).num_reused_tokens > 300
    warm(engine, edit(UNKNOWN_INSTRUCTION, after=""))
    assert run(engine, edit(INSTRUCTION, after="")).text == cold.text


def test_an_edit_takes_over_what_an_unfinished_warm_up_has_computed(engine: Engine) -> None:
    long = {"before": "import os\n" * 250}
    run(engine, edit("load the model"))
    expected = engine.submit(WarmRequest(edit=edit(UNKNOWN_INSTRUCTION, **long)))
    while expected.sequence is None or expected.sequence.cache.length < 300:
        time.sleep(0.0005)
    result = run(engine, edit(INSTRUCTION, **long))
    assert result.num_reused_tokens >= 300
    assert expected.future.done()  # answered, and not paused until after the edit
    assert engine.health().num_active == 0


def test_a_longer_instruction_does_not_cut_the_surroundings_anew(engine: Engine) -> None:
    wide = {"before": "import os\n" * 900, "after": "end = 1\n" * 200}
    warm(engine, edit(UNKNOWN_INSTRUCTION, **wide))
    reused = {run(engine, edit("x" * size, **wide)).num_reused_tokens for size in (2, 20)}
    assert min(reused) > 2500


def test_the_longest_instruction_can_be_warmed(engine: Engine) -> None:
    assert len(edit("x" * MAX_INSTRUCTION_CHARACTERS).instruction) == MAX_INSTRUCTION_CHARACTERS
    request = edit("x" * 2000)
    warm(engine, request)
    assert run(engine, request).num_computed_tokens <= TAIL


def test_surroundings_without_room_are_left_out_and_a_selection_without_room_is_refused(engine: Engine) -> None:
    selection = "value = 1\n" * 365
    result = run(engine, edit("x", selection=selection))
    assert "left out" in result.notice and result.num_prompt_tokens <= 4096
    with pytest.raises(ContextTooLong, match="select fewer lines"):
        run(engine, edit("x", selection=selection + "value = 1\n" * 60))
