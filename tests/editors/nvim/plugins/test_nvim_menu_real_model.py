"""The default model's suggestion out of the menus of the real nvim-cmp and blink.cmp."""

import pytest
from helpers.neovim_real import open_real
from helpers.neovim_unmask import open_file, wait_until_ready

pytestmark = [pytest.mark.real_model, pytest.mark.slow]

TEXT = '''def fibonacci(n):
    """The n-th Fibonacci number."""
    if n < 2:
        return n
'''


def test_a_suggestion_of_the_default_model_is_taken_and_right(plugin, tmp_path):
    with open_real(tmp_path / "home", plugin.init()) as nvim:
        open_file(nvim, tmp_path / "fibonacci.py", TEXT)
        nvim.keys("Go")
        wait_until_ready(nvim, timeout_s=120)
        nvim.keys("<C-u>")
        nvim.type("    return fibo", 0.05)
        label = nvim.wait_for(
            lambda: next((e for e in plugin.entries(nvim) if e.startswith("fibonacci(")), None), "the entry", 60
        )
        plugin.confirm(nvim, label)
        nvim.keys("<Esc>")
        names = {}
        exec("\n".join(nvim.buffer), names)
        assert names["fibonacci"](10) == 55
