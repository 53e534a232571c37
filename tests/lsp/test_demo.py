"""`unmask demo` as a process: the default model, a language server, its engine, and an edited file that is run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 240
GHOST = re.compile(r"^ +\d+  [^\n]*?\{\+(.+?)\+\}", re.MULTILINE | re.DOTALL)
FIGURES = re.compile(
    r"(\d+) ms to the ghost text; (\d+) tokens in (\d+) forwards \(NFE\), [\d.]+ tokens per forward; "
    r"prompt of (\d+) tokens: (\d+) reused, (\d+) computed"
)


@pytest.fixture
def environment(tmp_path):
    """A state folder of its own, and the command as pyproject.toml declares it, be the project installed or not."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["unmask.commands"]
    metadata = tmp_path / "unmask-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: unmask\nVersion: 0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in declared.items())
    (metadata / "entry_points.txt").write_text(f"[unmask.commands]\n{lines}")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT))),
        "UNMASK_STATE_DIR": str(tmp_path / "state"),
    }


def run_demo(environment, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "diffusion_core.commands", "demo", "--plain", *arguments],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip


@pytest.mark.real_model
@pytest.mark.slow
def test_the_demo_shows_ghost_text_and_an_edit_and_says_whether_it_works(environment):
    environment["UNMASK_ENGINE_EDIT_MODEL"] = "qwen2.5-coder-0.5b"
    done = run_demo(environment, "--no-edit-model", "--stop-engine")
    assert done.returncode == 0, done.stdout + done.stderr
    out = done.stdout
    assert "\x1b" not in out, "--plain means no colours"

    first, after_a_key, after_two, second = GHOST.findall(out)
    assert (after_a_key, after_two) == (first[1:], first[2:]), "typing along peels the suggestion"
    assert second.strip()
    assert out.count("ms, no call of the engine") == 2

    fresh, reusing = ([int(number) for number in found] for found in FIGURES.findall(out))
    for _, num_tokens, num_forwards, prompt, reused, computed in (fresh, reusing):
        assert 0 < num_forwards <= num_tokens
        assert prompt == reused + computed
    assert reusing[4] > fresh[3] // 2, "the next function's prompt begins with what was read before"

    assert "--- a/orders.py\n+++ b/orders.py\n" in out
    assert re.search(r"^\+ +\S", out, re.MULTILINE), "the diff adds a line"
    assert re.search(r"^Check: the edited file (works \(|does not work: \S)", out, re.MULTILINE)
    assert re.search(r"\d+ tokens in \d+ forwards .* preview frames; qwen2.5-coder-0.5b", out)
    assert "The engine is stopped." in out


def test_an_engine_that_cannot_be_had_is_said_in_one_line(environment, tmp_path):
    token = tmp_path / "token"
    token.write_text("a-token-for-tests")
    done = run_demo(environment, "--url", "http://127.0.0.1:9", "--token-file", str(token))
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "127.0.0.1:9" in line
