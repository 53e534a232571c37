"""`pip install .` without extras: a language server and a client, no torch."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of a new environment that has the distribution and its plain dependencies only."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT)], check=True, timeout=300)
    return python.parent


@pytest.mark.slow
def test_a_plain_installation_serves_editors_without_torch(bare: Path, tmp_path: Path) -> None:
    listed = subprocess.run([bare / "python", "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "unmask" in names
    assert not names & {"torch", "transformers", "numpy", "starlette"}
    for command in (["--help"], ["--version"], ["models"], ["lsp", "--help"]):
        subprocess.run([bare / "unmask", *command], capture_output=True, check=True, cwd=tmp_path)
    body = json.dumps({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"processId": None, "rootUri": None, "capabilities": {"textDocument": {"inlineCompletion": {}}}},
    }).encode()  # fmt: skip
    with subprocess.Popen(
        [bare / "unmask", "lsp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        server.stdin.flush()
        length = int(server.stdout.readline().split(b":")[1])
        while server.stdout.readline().strip():
            pass
        answer = json.loads(server.stdout.read(length))
        server.kill()
    assert "inlineCompletionProvider" in answer["result"]["capabilities"]
