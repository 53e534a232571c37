"""The public names, and what importing costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import diffusion_core

NEEDS_TORCH = {
    "AsyncEngine", "BlockDecoder", "Engine", "KVCache", "Transformer",
}  # fmt: skip


@pytest.mark.parametrize("name", diffusion_core.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(diffusion_core, name) is not None


def test_names_are_sorted_and_an_unknown_one_is_refused() -> None:
    # Constants, then classes, then functions, each in order: what ruff's RUF022 keeps.
    assert len(set(diffusion_core.__all__)) == len(diffusion_core.__all__) == len(diffusion_core._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'Backend'"):
        _ = diffusion_core.Backend


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_clients_and_the_language_server_never_import_torch() -> None:
    light = [name for name in diffusion_core.__all__ if name not in NEEDS_TORCH]
    light = [name for name in light if name not in {"create_app", "Checkpoint", "load_checkpoint", "save_checkpoint"}]
    code = f"""
import sys
import diffusion_core, lsp_server, lsp_server.server, diffusion_core.commands, diffusion_core.prompts
for name in {light!r}:
    getattr(diffusion_core, name)
heavy = {{"torch", "transformers", "numpy", "starlette", "uvicorn", "safetensors"}} & set(sys.modules)
print(sorted(heavy))
"""
    assert run_python(code) == "[]"


def test_importing_the_core_imports_nothing_else_of_it() -> None:
    code = "import sys, diffusion_core; print(sorted(m for m in sys.modules if m.startswith('diffusion_core.')))"
    assert run_python(code) == "[]"
