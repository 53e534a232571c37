"""``python -m lsp_server``: the language server on stdin and stdout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse the options and serve."""
    parser = argparse.ArgumentParser(prog="lsp_server", description="The Unmask language server on stdio.")
    parser.add_argument("--log-file", type=Path, default=None, help="write the log here instead of to stderr")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="warning")
    parser.add_argument("--stdio", action="store_true", help="accepted because editors pass it; stdio is the only way")
    options = parser.parse_args()
    from lsp_server.launch import launch

    return launch(options.log_level, options.log_file)


if __name__ == "__main__":
    sys.exit(main())
