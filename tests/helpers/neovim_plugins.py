"""Other people's plugins for Neovim: checkouts in a folder that the environment names; no package index has them.

``UNMASK_TEST_NVIM_PLUGINS=/some/folder`` with ``nvim-cmp``, ``blink.cmp`` and ``lazy.nvim`` in it. Their tests are
skipped without it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.neovim import Neovim
from helpers.neovim_unmask import wait_for_ghost

VARIABLE = "UNMASK_TEST_NVIM_PLUGINS"
FOLDER = Path(os.environ[VARIABLE]).resolve() if os.environ.get(VARIABLE) else None
CMP, BLINK, LAZY = "nvim-cmp", "blink.cmp", "lazy.nvim"


def needs(plugin: str) -> pytest.MarkDecorator:
    """Skips where there is no checkout of the plugin."""
    there = FOLDER is not None and (FOLDER / plugin / "lua").is_dir()
    return pytest.mark.skipif(not there, reason=f"{VARIABLE} names no folder with a checkout of {plugin}")


def load(plugin: str, script: str) -> str:
    """Lua that loads a checkout as a package loader would."""
    return f"vim.opt.runtimepath:append('{FOLDER}/{plugin}')\nvim.cmd('runtime {script}')\n"


# Entries that are always there, as those of a language server are.
WORDS = ("count_of_words", "counter_of_lines", "valley")
_ITEMS = ", ".join(f"{{ label = '{word}' }}" for word in WORDS)
_CMP_WORDS = f"{{ complete = function(_, _, callback) callback({{ {_ITEMS} }}) end }}"
_BLINK_WORDS = f"""
package.preload['unmask_test_words'] = function()
  return {{ new = function()
    return {{ get_completions = function(_, _, callback)
      callback({{ items = {{ {_ITEMS} }}, is_incomplete_forward = false, is_incomplete_backward = false }})
    end }}
  end }}
end
"""


@dataclass(frozen=True)
class MenuPlugin:
    """A completion plugin, set up as its documentation and ours say, and how its menu is read (Lua expressions)."""

    name: str
    labels: str
    selected: str
    is_open: str

    def init(self, options: str = "") -> str:
        """Lua that loads it with our source and one of fixed words; ``options`` are members of its setup's table."""
        if self.name == CMP:
            return f"""
{load(CMP, "plugin/cmp.lua")}
local cmp = require('cmp')
cmp.register_source('unmask', require('unmask.cmp').new())
cmp.register_source('words', {_CMP_WORDS})
cmp.setup({{
  sources = {{ {{ name = 'words' }}, {{ name = 'unmask' }} }},
  mapping = cmp.mapping.preset.insert({{
    ['<Tab>'] = function(fallback)
      if cmp.visible() then cmp.select_next_item() else fallback() end
    end,
  }}),
  {options}
}})
"""
        return f"""
{load(BLINK, "plugin/blink-cmp.lua")}
{_BLINK_WORDS}
require('blink.cmp').setup({{
  fuzzy = {{ implementation = 'lua' }},
  keymap = {{ preset = 'default', ['<Tab>'] = {{ 'select_next', 'fallback' }} }},
  sources = {{
    default = {{ 'words', 'unmask' }},
    providers = {{
      words = {{ module = 'unmask_test_words' }},
      unmask = {{ name = 'Unmask', module = 'unmask.blink', async = true }},
    }},
  }},
  {options}
}})
"""

    def entries(self, nvim: Neovim) -> list[str]:
        """Labels of the menu's entries; empty while it is closed."""
        return list(nvim.lua(f"return {self.is_open} and {self.labels} or {{}}"))

    def wait_for_entry(self, nvim: Neovim, label: str) -> None:
        nvim.wait_for(lambda: label in self.entries(nvim), f"the entry {label!r}")

    def selected_entry(self, nvim: Neovim) -> str | None:
        label = nvim.lua(f"return {self.selected}")
        return None if label is None else str(label)

    def press_and_wait(self, nvim: Neovim, keys: str) -> None:
        """Press keys that select another entry, which the plugin may do a moment later."""
        before = self.selected_entry(nvim)
        nvim.keys(keys)
        nvim.wait_for(lambda: self.selected_entry(nvim) != before, "another entry")

    def wait_until_closed(self, nvim: Neovim) -> None:
        nvim.wait_for(lambda: not nvim.lua(f"return {self.is_open}"), "the menu's end")

    def confirm(self, nvim: Neovim, label: str) -> None:
        """Select the entry by the plugin's keys, and take it."""
        self.wait_for_entry(nvim, label)
        for _ in range(len(WORDS) + 2):
            if self.selected_entry(nvim) == label:
                break
            self.press_and_wait(nvim, "<C-n>")
        assert self.selected_entry(nvim) == label
        nvim.keys("<C-y>")
        self.wait_until_closed(nvim)


NVIM_CMP = MenuPlugin(
    name=CMP,
    labels="vim.tbl_map(function(e) return e.completion_item.label end, require('cmp').get_entries())",
    selected="(require('cmp').get_selected_entry() or { completion_item = {} }).completion_item.label",
    is_open="require('cmp').core.view:visible()",
)
BLINK_CMP = MenuPlugin(
    name=BLINK,
    labels="vim.tbl_map(function(i) return i.label end, require('blink.cmp.completion.list').items)",
    selected="(require('blink.cmp.completion.list').get_selected_item() or {}).label",
    is_open="require('blink.cmp').is_menu_visible()",
)
PLUGINS = [pytest.param(NVIM_CMP, id=CMP, marks=needs(CMP)), pytest.param(BLINK_CMP, id=BLINK, marks=needs(BLINK))]


def type_into(nvim: Neovim, text: str) -> None:
    """Type, and wait until the answer for the last character is there."""
    nvim.keys("i")
    nvim.type(text)
    wait_for_ghost(nvim)
