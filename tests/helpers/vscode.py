"""A real VS Code for tests: code-server (VS Code's own code behind a web server) and a headless Chromium.

``tests/editors/vscode/setup.sh`` puts both in place. The extension is the packaged one, unpacked into the editor's
extensions folder; keys, mouse and the rendered page are all that a test has, as a user.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).resolve().parents[2]
EDITORS = ROOT / ".editors"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
)  # fmt: skip
QUIET = {
    "editor.fontFamily": "DejaVu Sans Mono",
    "editor.fontSize": 14,
    "editor.minimap.enabled": False,
    "editor.wordBasedSuggestions": "off",
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},
    "editor.suggestOnTriggerCharacters": False,
    "editor.cursorBlinking": "solid",
    "editor.formatOnType": False,
    "editor.accessibilitySupport": "off",
    "extensions.ignoreRecommendations": True,
    "files.autoSave": "off",
    "git.enabled": False,
    "security.workspace.trust.enabled": False,
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "window.commandCenter": False,
    "window.menuBarVisibility": "hidden",
    "workbench.activityBar.location": "hidden",
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.editor.enablePreview": False,
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
    "workbench.welcomePage.walkthroughs.openOnInstall": False,
}
TIMEOUT_S = 20.0


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S, page: Page | None = None) -> Any:
    """The first true value of ``condition``; ``what`` is for the message of the failure."""
    give_up = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up, f"{what} did not come within {timeout_s:g} s; last: {value!r}"
        if page is not None:
            page.wait_for_timeout(30)  # lets playwright handle what the browser sends
        else:
            time.sleep(0.03)


class VsCode:
    """One window of the editor on ``folder``."""

    def __init__(self, page: Page, folder: Path, data: Path, artefacts: Path) -> None:
        self.page = page
        self.folder = folder
        self.data = data
        self._artefacts = artefacts
        self._settings: dict[str, Any] = {}
        self._has_opened = False

    # --- settings ----------------------------------------------------------------------------------------------------

    def set(self, **settings: Any) -> None:
        """Change settings, as if in the settings file; ``__`` stands for a dot, None removes one."""
        changed = {name.replace("__", "."): value for name, value in settings.items()}
        self._settings = {name: value for name, value in {**self._settings, **changed}.items() if value is not None}
        write_settings(self.data, self._settings)

    def bind(self, *keys: dict[str, Any]) -> None:
        """Bind keys of the user's: ``{key, command, args}``. The window is loaded anew, which reads them."""
        (self.data / "User" / "keybindings.json").write_text(json.dumps(keys))
        self.reload()

    def reload(self) -> None:
        """Load the window anew."""
        self._has_opened = False
        self.page.reload()
        self.page.locator(".monaco-workbench").wait_for(timeout=60_000)

    # --- files and commands ------------------------------------------------------------------------------------------

    def open(self, name: str, text: str = "", *, line: int = 1, column: int = 1) -> Path:
        """Write a file and open it with the cursor at a 1-based place."""
        path = self.folder / name
        path.write_bytes(text.encode())
        self.page.keyboard.press("Control+p")
        self.quick_input().fill(str(path))  # a whole path needs no search, which has no ripgrep here
        self.page.locator(".quick-input-list .monaco-list-row", has_text=name).first.wait_for()
        self.page.keyboard.press("Enter")
        self.page.locator(f".tab.active[data-resource-name='{name}']").wait_for()
        self.page.locator(".editor-instance .view-lines").first.wait_for()
        if not self._has_opened:
            # The editor loads what shows suggestions a moment after its first file; no key before that makes it ask.
            self._has_opened = True
            self.page.wait_for_timeout(1500)
        self.go_to(line, column)
        return path

    def go_to(self, line: int, column: int = 1) -> None:
        """Put the cursor at a 1-based place of the active editor."""
        self.page.keyboard.press("Control+g")
        self.quick_input().fill(f":{line}:{column}")
        self.page.keyboard.press("Enter")
        self.page.locator(".quick-input-widget").wait_for(state="hidden")

    def command(self, title: str) -> None:
        """Run a command of the palette."""
        self.page.keyboard.press("F1")
        self.quick_input().fill(f">{title}")
        row = self.page.locator(".quick-input-list .monaco-list-row", has_text=title).first
        row.wait_for()
        row.click()

    def quick_input(self) -> Locator:
        """The text field of the palette and of pickers."""
        field = self.page.locator(".quick-input-widget:visible input.input").first
        field.wait_for()
        return field

    def quick_rows(self) -> list[str]:
        """What a picker offers."""
        return [
            " ".join(text.split()) for text in self.page.locator(".quick-input-list .monaco-list-row").all_inner_texts()
        ]

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str, delay_ms: float = 25) -> None:
        self.page.keyboard.type(text, delay=delay_ms)

    def save(self) -> str:
        """Save the active editor; the result is the file's text, exactly."""
        name = self.page.locator(".tab.active").first.get_attribute("data-resource-name")
        assert name
        self.page.keyboard.press("Control+s")
        self.page.locator(".tab.active.dirty").wait_for(state="detached")
        return (self.folder / name).read_bytes().decode()

    def expect(self, text: str, timeout_s: float = 5.0) -> None:
        """Save until the file holds this text: the editor carries keys out a moment after they are pressed."""
        give_up = time.monotonic() + timeout_s
        while (saved := self.save()) != text and time.monotonic() < give_up:
            self.page.wait_for_timeout(50)
        assert saved == text, f"the file is\n{saved!r}\nand should be\n{text!r}"

    # --- what can be seen --------------------------------------------------------------------------------------------

    def ghost_text(self) -> str:
        """The ghost text as shown, its lines joined by newlines."""
        script = """() => {
            const editor = document.querySelector('.editor-instance');
            const texts = selector => [...(editor?.querySelectorAll(selector) ?? [])].map(node => node.textContent);
            return [texts('.view-lines .ghost-text-decoration').join(''), ...texts('.suggest-preview-text .view-line')];
        }"""
        return "\n".join(self.page.evaluate(script)).replace("\xa0", " ").rstrip("\n")

    def wait_for_ghost_text(self, text: str, timeout_s: float = TIMEOUT_S) -> None:
        wait_for(lambda: text in self.ghost_text(), f"ghost text {text!r}", timeout_s, self.page)

    def status(self) -> str:
        """The label of the status bar item: what a screen reader says."""
        item = self.page.locator("#unmask\\.unmask\\.unmask\\.status a, [id*='unmask.status'] a").first
        return item.get_attribute("aria-label") or "" if item.count() else ""

    def wait_for_status(self, text: str, timeout_s: float = TIMEOUT_S) -> None:
        try:
            wait_for(lambda: text in self.status(), f"status {text!r}", timeout_s, self.page)
        except AssertionError:
            raise AssertionError(f"no status {text!r} within {timeout_s:g} s; it is {self.status()!r}") from None

    def notifications(self) -> list[str]:
        return self.page.locator(".notification-list-item-message").all_inner_texts()

    def wait_for_notification(self, text: str, timeout_s: float = TIMEOUT_S) -> None:
        seen: set[str] = set()

        def is_there() -> bool:
            seen.update(self.notifications())
            return any(text in message for message in seen)

        try:
            wait_for(is_there, f"notification {text!r}", timeout_s, self.page)
        except AssertionError:
            raise AssertionError(f"no notification {text!r} within {timeout_s:g} s, only {sorted(seen)}") from None

    def clear_notifications(self) -> None:
        self.command("Notifications: Clear All Notifications")

    def screenshot(self, name: str, clip: dict[str, float] | None = None) -> Path:
        """Write a picture into the artefacts."""
        self._artefacts.mkdir(parents=True, exist_ok=True)
        path = self._artefacts / f"{name}.png"
        self.page.wait_for_timeout(300)  # things slide in
        self.page.screenshot(path=path, **({"clip": clip} if clip else {}))
        return path


def why_not() -> str:
    """Put the editor in place; the result says why it cannot be used here, and is empty if it can."""
    if find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    script = ROOT / "tests" / "editors" / "vscode" / "setup.sh"
    finished = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=900, check=False)
    return "" if finished.returncode == 0 else (finished.stderr.strip().splitlines() or ["setup.sh failed"])[-1]


def write_settings(data: Path, settings: dict[str, Any]) -> None:
    """Settings of the user and, as the editor runs on a server, of that machine."""
    for folder in ("User", "Machine"):
        path = data / folder / "settings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({**QUIET, **settings}))
        fresh.replace(path)


@contextlib.contextmanager
def run_code_server(folder: Path, data: Path, environment: dict[str, str], log_level: str) -> Iterator[str]:
    """A code-server with our extension on ``folder``; yields its address."""
    extensions = data / "extensions"
    with zipfile.ZipFile(EDITORS / "unmask.vsix") as package:
        package.extractall(data / "unpacked")
    extensions.mkdir()
    shutil.move(data / "unpacked" / "extension", extensions / "unmask.unmask-0.1.0")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [
        "node", str(EDITORS / "code-server" / "out" / "node" / "entry.js"), "--auth", "none",
        "--bind-addr", f"127.0.0.1:{port}", "--config", os.devnull, "--disable-telemetry", "--disable-update-check",
        "--disable-workspace-trust", "--disable-getting-started-override", "--user-data-dir", str(data),
        "--extensions-dir", str(extensions), "--log", log_level, str(folder),
    ]  # fmt: skip
    with (data / "code-server.log").open("w") as log:
        own = {f"XDG_{kind}_HOME": str(data / kind.lower()) for kind in ("DATA", "CONFIG")}
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **own, **environment}
        )
        try:
            wait_for(lambda: _listens(port) or process.poll() is not None, "code-server", 60)
            assert process.poll() is None, (data / "code-server.log").read_text()
            yield f"http://127.0.0.1:{port}/?folder={folder}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@contextlib.contextmanager
def open_vscode(
    base: Path, artefacts: Path, settings: dict[str, Any], environment: dict[str, str], log_level: str = "info"
) -> Iterator[VsCode]:
    """A window with our extension, on an empty folder below ``base``."""
    from playwright.sync_api import sync_playwright

    folder, data = base / "project", base / "data"
    folder.mkdir()
    server = [sys.executable, "-P", "-m", "lsp_server"]
    environment = {"PYTHONPATH": str(ROOT), "UNMASK_STATE_DIR": str(base / "state"), **environment}
    settings = {"unmask.server.command": server, **settings}
    write_settings(data, settings)
    browser_path = next(filter(None, map(shutil.which, BROWSERS)))
    with run_code_server(folder, data, environment, log_level) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=list(BROWSER_ARGUMENTS))
        try:
            page = browser.new_page(viewport={"width": 1100, "height": 720})
            page.goto(url)
            page.locator(".monaco-workbench").wait_for(timeout=60_000)
            editor = VsCode(page, folder, data, artefacts)
            editor._settings = settings
            yield editor
        finally:
            browser.close()
