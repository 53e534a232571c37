"""Options, files and questions that the tests of the Neovim plugin share."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.lsp_engine import TOKEN
from helpers.neovim import Neovim

SERVER = (sys.executable, "-m", "lsp_server")
# Counts what the plugin asks for, by method.
COUNT_REQUESTS = """
_G.requests = {}
vim.api.nvim_create_autocmd('LspRequest', { callback = function(event)
  local request = event.data.request
  local name = request.type == 'pending' and request.method or request.type == 'cancel' and 'cancelled'
  if name then
    _G.requests[name] = (_G.requests[name] or 0) + 1
  end
end })
"""

# The language servers among the children of Neovim.
SERVER_PIDS = """
local children = vim.tbl_map(vim.api.nvim_get_proc, vim.api.nvim_get_proc_children(vim.fn.getpid()))
local servers = vim.tbl_filter(function(process) return process.name:find('python') end, children)
return vim.tbl_map(function(process) return process.pid end, servers)
"""


def setup(url: str, *, cmd: Sequence[str] = SERVER, settings: Any = None, token: str = TOKEN, **options: Any) -> str:
    """Lua that sets the plugin up for an engine."""
    engine = {"url": url, "token": token}
    given = {"cmd": list(cmd), "settings": {"engine": engine, **(settings or {})}, **options}
    return f"require('unmask').setup(vim.json.decode([==[{json.dumps(given)}]==]))\n{COUNT_REQUESTS}"


def open_file(nvim: Neovim, path: Path, text: str, *, line_end: str = "\n") -> None:
    """Write a file and edit it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", line_end).encode())
    nvim.request("nvim_cmd", {"cmd": "edit", "args": [str(path)], "magic": {"file": False}}, {})


def state(nvim: Neovim) -> dict[str, Any]:
    """What the statusline is made of."""
    return dict(nvim.lua("return require('unmask').state()"))


def wait_until_ready(nvim: Neovim, timeout_s: float = 30) -> None:
    nvim.wait_for(lambda: state(nvim)["reason"] == "ready", "the engine's readiness", timeout_s)


def is_visible(nvim: Neovim) -> bool:
    """Whether ghost text is shown."""
    return bool(nvim.lua("return require('unmask').is_visible()"))


def wait_for_ghost(nvim: Neovim) -> None:
    nvim.wait_for(lambda: is_visible(nvim), "ghost text")


def num_asked(nvim: Neovim) -> int:
    """How many requests for ghost text the plugin sent."""
    return int(nvim.lua("return _G.requests['textDocument/inlineCompletion'] or 0"))


def text_of(nvim: Neovim) -> str:
    return "\n".join(nvim.buffer)


def edit_state(nvim: Neovim) -> str:
    """The state of the current buffer's edit; empty if there is none."""
    code = "local s = require('unmask.edit').of(vim.api.nvim_get_current_buf()); return s and s.state or ''"
    return str(nvim.lua(code))


def wait_for_hunks(nvim: Neovim) -> None:
    nvim.wait_for(lambda: edit_state(nvim) == "deciding", "hunks to decide about")


def wait_for_no_edit(nvim: Neovim) -> None:
    nvim.wait_for(lambda: edit_state(nvim) == "", "the end of the edit")


def errors_of(nvim: Neovim) -> str:
    """Neovim's own messages: where errors in Lua callbacks go."""
    return str(nvim.lua("return vim.trim(vim.fn.execute('messages')) .. vim.v.errmsg"))
