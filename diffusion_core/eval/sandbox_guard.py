"""Refuses sockets, and changes outside the working folder, where the kernel cannot do it for the sandbox.

:mod:`.sandbox_child` copies this file as ``sitecustomize.py`` to where the program's interpreter finds it, so the
hook is in place before the program begins. An audit hook cannot be removed. It stops accidents, not ill will.
"""

from __future__ import annotations

import os
import sys
from typing import Any

CHANGES = frozenset(
    f"os.{name}" for name in ("chmod", "chown", "link", "mkdir", "remove", "rename", "rmdir", "symlink", "truncate")
) | {"os.utime", "shutil.rmtree", "shutil.move"}
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def install_guard(folder: str) -> None:
    """Refuse all sockets, and changes of files outside ``folder``, for the rest of this process."""
    root = os.path.realpath(folder) + os.sep

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith("socket.") and event != "socket.gethostname":
            raise PermissionError("the network is not available in the sandbox")
        if event == "open":
            path, _, flags = arguments
            paths = (path,) if (flags or 0) & WRITE_FLAGS else ()
        elif event in CHANGES:
            paths = arguments
        else:
            return
        for path in paths:
            if not isinstance(path, str | bytes):
                continue
            name = os.fsdecode(path)
            if name != os.devnull and not (os.path.realpath(name) + os.sep).startswith(root):
                raise PermissionError("only the working folder can be changed in the sandbox")

    sys.addaudithook(guard)


if __name__ == "sitecustomize":
    install_guard(os.getcwd())  # noqa: PTH109 - see above
