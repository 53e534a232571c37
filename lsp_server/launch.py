"""Start of the process: first the answer to ``initialize``, then the imports that take time, then the protocol."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import BinaryIO, cast

from lsp_server.handshake import ReplayedInput, greet


def launch(log_level: str, log_file: Path | None) -> int:
    """Serve on the process's own stdin and stdout; the result is the exit code.

    Whatever else in this process (or a child of it) writes to stdout goes to stderr: stdout carries the protocol only.
    """
    protocol_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if log_file is not None:
        try:
            log_file.open("a", encoding="utf-8").close()
        except OSError as error:
            sys.stderr.write(f"--log-file {log_file}: {error.strerror}\n")
            return 2
    greeting = greet(sys.stdin.buffer, protocol_out, server_version())

    # The LSP types are hundreds of classes: collecting garbage while they are made costs a tenth of the time.
    gc.disable()
    from lsp_server.logs import configure_logging
    from lsp_server.server import create_server

    gc.freeze()
    gc.enable()
    configure_logging(log_level, log_file)
    server = create_server(version=server_version(), answered=greeting.answered)
    return server.serve(cast(BinaryIO, ReplayedInput(greeting.read, sys.stdin.buffer)), protocol_out)


def server_version() -> str:
    """The version of the installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("unmask")
    except PackageNotFoundError:
        return "0"
