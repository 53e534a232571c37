"""The default model asked by OpenAI's client: code that is right, and an answer that a person can read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from helpers.tiny_server import TOKEN, serve
from openai import OpenAI

from diffusion_core.config import DEFAULT_MODEL
from diffusion_core.eval.sandbox import Outcome, run_program

pytestmark = [pytest.mark.real_model, pytest.mark.slow]


def test_the_default_model_fills_in_and_chats(tmp_path: Path) -> None:
    with (
        serve(tmp_path, DEFAULT_MODEL, UNMASK_ENGINE_EDIT_MODEL=DEFAULT_MODEL) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as client,
    ):
        prefix = 'def add(a, b):\n    """Return the sum of a and b."""\n    return'
        suffix = "\n\n\ndef sub(a, b):\n    return a - b\n"
        filled = client.completions.create(model=DEFAULT_MODEL, prompt=prefix, suffix=suffix, max_tokens=16)
        assert filled.choices[0].text.strip() == "a + b"
        assert filled.choices[0].finish_reason == "stop"
        question = "Write a Python function named `double` that doubles a number. Reply with the code only."
        chunks = client.chat.completions.create(
            model=DEFAULT_MODEL, messages=[{"role": "user", "content": question}], max_tokens=120, stream=True
        )
        answer = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        code = answer.partition("```python\n")[2].partition("```")[0] or answer
        verdict = asyncio.run(run_program(f"{code}\nassert double(21) == 42\n"))
        assert verdict.outcome is Outcome.PASSED, answer
