"""Pulls one entry in a process of its own, for tests that kill it or run two at once.

Usage: python pull_process.py REGISTRY.toml NAME SOURCE [STOP_AT]: prints progress lines; once STOP_AT bytes are done
it says ``stopping`` and sleeps, to be killed there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def start_pull(registry: Path, name: str, source: str, stop_at: int = 0, **environment: str) -> subprocess.Popen[str]:
    """Start the process."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, __file__, str(registry), name, source, str(stop_at)]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    from diffusion_core.checkpoints.pull import pull_entry
    from diffusion_core.checkpoints.registry import parse_registry

    registry, name, source, stop_at = sys.argv[1:5]

    def report(done: int, total: int, what: str) -> None:
        print(done, total, what, flush=True)
        if int(stop_at) and done >= int(stop_at):
            print("stopping", flush=True)
            time.sleep(60)

    entry = parse_registry(Path(registry).read_text())[name]
    print("folder", pull_entry(entry, source=source, progress=report))
    print("torch" if "torch" in sys.modules else "no torch")


if __name__ == "__main__":
    main()
