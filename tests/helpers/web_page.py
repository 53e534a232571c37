"""The page in a real Chromium, served by a real `unmask serve`; whatever the browser complains of fails the test."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.answering_engine import command_environment
from helpers.tiny_models import VOCAB_SIZE, save_tiny_checkpoint
from helpers.vscode import BROWSER_ARGUMENTS, BROWSERS

from diffusion_core.model.config import DIFFUSION_CONFIG_FILE, DiffusionConfig, write_config

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "a-token-for-tests"
_MASK = VOCAB_SIZE - 1


def save_denoising_checkpoint(folder: Path) -> Path:
    """A tiny model whose mask slots can be denoised, so that every policy works."""
    save_tiny_checkpoint(folder)
    contract = DiffusionConfig(
        prompt_format="qwen2.5-coder/1", fim_layout="suffix_first", mask_token_id=_MASK, block_size=8
    )
    write_config(contract, folder / DIFFUSION_CONFIG_FILE)
    return folder


@contextlib.contextmanager
def serve_page(
    folder: Path, *arguments: object, token: str = TOKEN, ready_s: float = 60, **environment: str
) -> Iterator[str]:
    """`unmask serve` with ``arguments``; yields its address when it listens."""
    folder.mkdir(parents=True, exist_ok=True)
    if token:
        file = folder / "token"
        file.write_text(token)
        file.chmod(0o600)
        arguments = (*arguments, "--token-file", file)
    command = [sys.executable, "-m", "diffusion_core.commands", "serve", "--port", "0", *map(str, arguments)]
    log = folder / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            env=command_environment(folder, **environment),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + ready_s
        while not (found := re.search(r"Unmask engine on (http://\S+)[\s\S]*listening on port", log.read_text())):
            assert process.poll() is None and time.monotonic() < give_up, log.read_text()
            time.sleep(0.05)
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def why_no_browser() -> str:
    """Why no browser can be used here; empty if one can."""
    if find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    return "" if any(map(shutil.which, BROWSERS)) else "Chromium is not installed: apt-get install chromium"


@contextlib.contextmanager
def run_browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)))
    # A profile of its own, in memory where there is room: what one test leaves, none sees.
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        environment = {**os.environ, "HOME": home}
        browser = playwright.chromium.launch(executable_path=path, args=list(BROWSER_ARGUMENTS), env=environment)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A tab on the page, and everything that it should not have said. ``expected`` are parts of what it may say."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def sign_in(self, token: str = TOKEN) -> None:
        self.page.get_by_label("Access token").fill(token)
        self.page.keyboard.press("Enter")

    def check(self) -> None:
        unexpected = [text for text in self.complaints if not any(part in text for part in self.expected)]
        assert not unexpected, unexpected


@contextlib.contextmanager
def visit(browser: Browser, address: str, **context: Any) -> Iterator[Visit]:
    """A fresh tab (no storage, no cookies) on the page. Errors on its console, violations of its policy and requests
    to other sites fail the test at the end."""
    made = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    page = made.new_page()
    seen = Visit(page, address)
    page.on("console", lambda message: message.type in {"error", "warning"} and seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(f"uncaught: {error}"))
    page.on(
        "request",
        lambda asked: asked.url.startswith(address) or seen.complaints.append(f"asked elsewhere: {asked.url}"),
    )
    page.set_default_timeout(20_000)
    page.goto(f"{address}/")
    try:
        yield seen
    finally:
        made.close()
    seen.check()
