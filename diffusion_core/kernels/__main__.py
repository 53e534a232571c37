"""`python -m diffusion_core.kernels FOLDER` compiles all kinds into FOLDER, for machines without a compiler.

There, ``UNMASK_KERNELS_FOLDER`` names it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from diffusion_core.kernels.compiler import CompilationFailed, compile_into
from diffusion_core.kernels.kinds import KINDS


def main() -> int:
    """Compile; 1 where that fails."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)  # for others to read, unlike one in somebody's cache
    try:
        for kind in KINDS:
            print(f"{kind.name}: {compile_into(folder, kind.flags)}")  # noqa: T201
    except CompilationFailed as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
