"""Somebody else's program end to end: `llm`, a command line for language models, asks `unmask serve`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.tiny_server import TOKEN, ServeProcess

MODELS = """
- model_id: {kind}
  model_name: default
  api_base: {url}/v1
  api_key_name: unmask
  {completion}
"""


def llm(folder: Path, *arguments: str) -> str:
    """What the command prints."""
    environment = {**os.environ, "LLM_USER_PATH": str(folder), "OPENAI_API_KEY": "not this one"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "llm", *arguments],
        env=environment, input="", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_completes_and_chats_in_streams_and_whole(tmp_path: Path, tiny_server: ServeProcess) -> None:
    _set_up(tmp_path, tiny_server)
    expected = tiny_server.post("/v1/completions", prompt="def add(a, b):", max_tokens=20).json()["choices"][0]["text"]
    asked = ("-o", "max_tokens", "20", "-n")
    for streaming in ((), ("--no-stream",)):
        text = llm(tmp_path, "-m", "completions", *asked, *streaming, "def add(a, b):")
        assert text.removesuffix("\n") == expected.removesuffix("\n")
    messages = [{"role": "user", "content": "What is a block?"}]
    answer = tiny_server.post("/v1/chat/completions", messages=messages, max_tokens=20).json()
    said = llm(tmp_path, "-m", "chat", *asked, "What is a block?")
    assert said.removesuffix("\n") == answer["choices"][0]["message"]["content"].removesuffix("\n")


def _set_up(folder: Path, server: ServeProcess) -> None:
    kinds = (("completions", "completion: true"), ("chat", "can_stream: true"))
    text = "".join(MODELS.format(kind=kind, url=server.url, completion=how) for kind, how in kinds)
    (folder / "extra-openai-models.yaml").write_text(text)
    (folder / "keys.json").write_text(f'{{"unmask": "{TOKEN}"}}')
