"""The engine behind the editor: lost and back, a wrong token, another model, switched off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers.lsp_engine import TOKEN, WrittenEngine, free_port, wait_until_listening
from helpers.running_server import run_asgi
from helpers.vscode import wait_for

from diffusion_core.config import ServerConfig
from diffusion_core.net.server import create_app

WRONG_TOKEN = "a-wrong-token-0123456789"


class EngineProcess:
    """An engine that can be killed and comes back at the same address."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        rules = json.dumps({"completions": {"value = ": "compute()"}})
        command = [sys.executable, "-P", "-m", "helpers.lsp_engine", str(self.port), TOKEN, rules]
        self.process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        wait_until_listening(self.port, 20)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def remote():
    engine = EngineProcess()
    engine.start()
    yield engine
    engine.kill()


@pytest.fixture(scope="module")
def engine_settings(remote):
    """No token in the settings: it is given by the command."""
    return {"unmask.engine.url": f"http://127.0.0.1:{remote.port}", "unmask.trace.server": "verbose"}


@pytest.fixture(scope="module")
def log_level():
    """Everything the editor can log, the messages to the server with their parameters included."""
    return "trace"


def set_token(vscode, token):
    vscode.command("Unmask: Set Engine Token")
    vscode.page.locator(".quick-input-title", has_text="token of the engine").wait_for()
    vscode.quick_input().fill(token)
    vscode.press("Enter")


def suggest(vscode, name):
    vscode.open(name, "value =\n", line=1, column=8)
    vscode.type(" ")
    vscode.wait_for_ghost_text("compute()")


def test_a_wrong_token_is_said_so_the_right_one_is_used_and_neither_is_written_down(vscode, tap):
    vscode.wait_for_status("no token")
    vscode.wait_for_notification("needs a token")
    vscode.clear_notifications()
    item = vscode.page.locator("[id='unmask.unmask.unmask.status']")
    assert "error-kind" in item.get_attribute("class")
    set_token(vscode, WRONG_TOKEN)
    wait_for(lambda: WRONG_TOKEN in json.dumps(tap.messages), "the token at the server", page=vscode.page)
    vscode.wait_for_status("Check unmask.engine.token")
    vscode.wait_for_notification("does not accept the token")
    item.hover()
    vscode.page.locator(".workbench-hover", has_text="unauthorized").wait_for()
    vscode.screenshot("status-unauthorized")
    set_token(vscode, TOKEN)
    vscode.wait_for_status("Ready")
    vscode.clear_notifications()
    suggest(vscode, "token.py")
    files = [path for path in vscode.data.rglob("*") if path.is_file() and path.suffix in {".log", ".json", ".txt"}]
    (log,) = [path for path in files if path.name == "Unmask.log"]
    wait_for(lambda: '"token": "(hidden)"' in log.read_text(), "the trace of the settings", page=vscode.page)
    for path in files:
        text = path.read_text(errors="replace")
        assert TOKEN not in text, path
        assert WRONG_TOKEN not in text, path


def last_engine_settings(tap):
    """What the server was last given when it asked for its settings."""
    answers = [message["result"] for message in tap.messages if message["from"] == "editor" and "result" in message]
    return [answer[0]["engine"] for answer in answers if isinstance(answer, list) and "engine" in (answer[0] or {})][-1]


def test_a_token_is_given_to_the_server_it_belongs_to_and_to_no_other(vscode, tap, remote):
    url = f"http://127.0.0.1:{remote.port}"
    assert last_engine_settings(tap)["token"] == TOKEN
    other = f"http://localhost:{remote.port}"
    vscode.set(unmask__engine__url=other)
    wait_for(lambda: last_engine_settings(tap)["url"] == other, "the other address", page=vscode.page)
    assert "token" not in last_engine_settings(tap)
    vscode.wait_for_status("no token")
    vscode.set(unmask__engine__url=url)
    vscode.wait_for_status("Ready")
    assert last_engine_settings(tap)["token"] == TOKEN
    vscode.clear_notifications()


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """An engine behind a certificate of a private authority: its address and the authority's file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program to make a certificate")
    key, certificate = (tmp_path_factory.mktemp("tls") / name for name in ("key.pem", "authority.pem"))
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=unmask-test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    app = create_app(WrittenEngine(completions={"value = ": "compute()"}), ServerConfig(token=TOKEN), TOKEN)
    with run_asgi(app, ssl_certfile=str(certificate), ssl_keyfile=str(key)) as address:
        yield f"https://{address}", certificate


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(vscode, remote, encrypted):
    url, certificate = encrypted
    vscode.set(unmask__engine__url=url)
    vscode.wait_for_status("no token")
    set_token(vscode, TOKEN)
    vscode.wait_for_status("certificate")
    vscode.set(unmask__engine__caFile=str(certificate))
    vscode.wait_for_status("Ready")
    suggest(vscode, "tls.py")
    vscode.set(unmask__engine__url=f"http://127.0.0.1:{remote.port}", unmask__engine__caFile=None)
    vscode.wait_for_status("Ready")
    vscode.clear_notifications()


def test_the_engine_killed_and_back(vscode, remote):
    vscode.wait_for_status("Ready")
    remote.kill()
    vscode.open("killed.py", "x =\n", line=1, column=4)
    vscode.type(" ")
    vscode.wait_for_status("Trying again until it answers")
    vscode.screenshot("status-unreachable")
    assert vscode.notifications() == [], "typing must not be answered with messages"
    remote.start()
    vscode.wait_for_status("Ready", 30)
    suggest(vscode, "back.py")


def test_the_menu_switches_suggestions_off_and_on(vscode):
    vscode.wait_for_status("Ready")
    vscode.page.locator("[id='unmask.unmask.unmask.status'] a").click()
    wait_for(lambda: any("Suggest here" in row for row in vscode.quick_rows()), "the menu", page=vscode.page)
    rows = vscode.quick_rows()
    vscode.screenshot("menu")
    wanted = (
        "Switch suggestions off",
        "Suggest here",
        "Edit with instruction",
        "Choose a model",
        "Restart the engine",
        "Statistics",
        "Show the log",
        "Settings",
    )
    assert all(any(title in row for row in rows) for title in wanted), rows
    vscode.page.locator(".quick-input-list .monaco-list-row", has_text="Switch suggestions off").click()
    vscode.wait_for_status("switched off")
    vscode.open("off.py", "value =\n", line=1, column=8)
    vscode.type(" ")
    vscode.page.wait_for_timeout(600)
    assert vscode.ghost_text() == ""
    vscode.command("Unmask: Switch Suggestions On or Off")
    vscode.wait_for_status("Ready")


def test_choosing_a_model_changes_the_setting(vscode, tap):
    vscode.wait_for_status("Ready")
    vscode.command("Unmask: Choose Model")
    vscode.page.locator(".quick-input-list .monaco-list-row", has_text="Suggestions").click()
    vscode.page.locator(".quick-input-title", has_text="model for suggestions").wait_for()
    wait_for(lambda: any("qwen2.5-coder-1.5b" in row for row in vscode.quick_rows()), "the models", page=vscode.page)
    vscode.screenshot("models")
    vscode.page.locator(".quick-input-list .monaco-list-row", has_text="qwen2.5-coder-1.5b").first.click()
    settings = vscode.data / "Machine" / "settings.json"
    wait_for(
        lambda: '"unmask.engine.model": "qwen2.5-coder-1.5b"' in settings.read_text(), "the setting", page=vscode.page
    )
    wait_for(
        lambda: "qwen2.5-coder-1.5b" in json.dumps(tap.messages[-30:]), "the setting at the server", page=vscode.page
    )
    vscode.set(unmask__engine__model=None)


def test_statistics_are_a_page(vscode):
    vscode.command("Unmask: Show Statistics")
    vscode.page.locator(".tab.active", has_text="Unmask statistics.md").wait_for()
    lines = vscode.page.locator(".editor-instance .view-lines").first
    wait_for(lambda: "Unmask: statistics" in lines.inner_text().replace("\xa0", " "), "the page", page=vscode.page)
