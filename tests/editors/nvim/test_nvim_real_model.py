"""The default models in a real Neovim: ghost text that is right, and an edit that is applied and taken back."""

import pytest
from helpers.neovim_real import open_real
from helpers.neovim_unmask import edit_state, open_file, wait_for_ghost, wait_for_no_edit, wait_until_ready

pytestmark = [pytest.mark.real_model, pytest.mark.slow]

TEXT = '''def fibonacci(n):
    """The n-th Fibonacci number."""
    if n < 2:
        return n
'''


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with open_real(tmp_path_factory.mktemp("real")) as nvim:
        yield nvim


def run(nvim):
    """What the buffer's function gives."""
    names = {}
    exec("\n".join(nvim.buffer), names)
    return names["fibonacci"](10)


def test_ghost_text_of_the_default_model_is_accepted_and_right(real, tmp_path):
    open_file(real, tmp_path / "fibonacci.py", TEXT)
    real.keys("Go")
    wait_until_ready(real, timeout_s=120)
    real.keys("<C-u>")
    real.type("    return ")
    wait_for_ghost(real)
    real.wait_for(lambda: real.screen.text.count("fibonacci(") == 3, "the ghost text on the screen")
    assert real.buffer[-1] == "    return "
    real.keys("<Tab><Esc>")
    assert run(real) == 55


def test_an_edit_of_the_default_model_is_applied_and_taken_back(real, tmp_path):
    open_file(real, tmp_path / "renamed.py", f"{TEXT}    return fibonacci(n - 1) + fibonacci(n - 2)\n")
    real.keys("i<Esc>")
    wait_until_ready(real, timeout_s=120)
    before = real.buffer
    real.command("1,5Unmask edit add type hints to the signature")
    real.wait_for(lambda: edit_state(real) == "deciding", "hunks", timeout_s=120)
    real.keys("ghA")
    wait_for_no_edit(real)
    assert "def fibonacci(n: int) -> int:" in real.buffer and run(real) == 55
    real.keys("u")
    assert real.buffer == before
