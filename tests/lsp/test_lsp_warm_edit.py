"""An edit after its warm-up, from the editor to the real engine: it computes little more than the instruction."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from helpers.lsp_client import URI, open_editor, wait_until
from helpers.lsp_engine import TOKEN, serve_engine
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.callers import Caller
from diffusion_core.config import EngineConfig
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.requests import EditRequest, PreviewFrame, Result, WarmRequest

TEXT = "import os\n" * 30 + "\n\ndef f(a):\n    return a\n\n\n" + "print(f(1))\n" * 30
INSTRUCTION = "add type hints"


class WatchedEngine(AsyncEngine):
    """The real engine; its results are kept for the test."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.results: list[Result] = []
        self.num_warmed = 0

    async def edit(self, request: EditRequest) -> AsyncIterator[PreviewFrame | Result]:
        async for item in super().edit(request):
            if isinstance(item, Result):
                self.results.append(item)
            yield item

    def on_behalf_of(self, caller: Caller) -> AsyncEngine:
        return self

    async def warm(self, request: WarmRequest) -> None:
        await super().warm(request)
        self.num_warmed += 1


@pytest.fixture(params=["one model", "an edit model of its own"])
def real_engine(request, tmp_path):
    model = save_tiny_checkpoint(tmp_path / "model")
    edit_model = model if request.param == "one model" else save_tiny_checkpoint(tmp_path / "edits", seed=3)
    config = EngineConfig(
        model=str(model), edit_model=str(edit_model), dtype="float32", device="cpu", max_edit_tokens=40
    )
    engine = WatchedEngine(config)
    engine.start()
    with serve_engine(engine) as engine.url:
        yield engine
    asyncio.run(engine.aclose())


async def test_the_edit_reuses_what_was_read_while_the_instruction_was_typed(real_engine):
    where = {"start": {"line": 33, "character": 4}, "end": {"line": 33, "character": 4}}
    async with open_editor() as editor:
        await editor.initialize({"engine": {"url": real_engine.url, "token": TOKEN}})
        await editor.wait_for_status("ready", timeout_s=30)
        editor.open(TEXT)
        # A completion in between uses the other model, or other room of the same cache: it must not matter.
        await editor.inline(33, 12, invoked=True)
        scope = await editor.execute("unmask.editScope", {"uri": URI, "range": where})
        assert scope["name"] == "f"
        command = {"uri": URI, "range": scope["range"]}
        for count, typed in enumerate(("", INSTRUCTION[:8]), start=1):
            await editor.execute("unmask.warmEdit", {**command, "instruction": typed})
            await wait_until(lambda count=count: real_engine.num_warmed == count, 90)
        answer = await editor.execute(
            "unmask.edit", {**command, "version": 1, "instruction": INSTRUCTION, "apply": False}
        )
        assert answer["status"] in {"ready", "incomplete", "empty"}
        (result,) = real_engine.results
        assert result.num_reused_tokens > 800
        assert result.num_computed_tokens < 200  # a byte is a token here: the rest of the instruction and of the prompt
        assert await editor.shut_down() == 0
