"""Compiling the kernels: once, with whatever compiler there is, and never needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_core.cli import pull as pulling
from diffusion_core.cli.pull import prepare_kernels
from diffusion_core.kernels import compiler, kinds, library
from diffusion_core.kernels.compiler import CompilationFailed, compiled_library, find_compiler

ROOT = Path(__file__).resolve().parents[2]
KIND = (*kinds.usable_kinds(), kinds.KINDS[-1])[0]
needs_kernels = pytest.mark.skipif(bool(library.why_no_kernels()), reason=library.why_no_kernels())

# What an engine does with a model that would have 8 bits: its answer, and why it has no kernels.
ASK = """
import sys
import torch
from diffusion_core.engine import device
device._LARGE_BYTES = 1
from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.kernels.library import why_no_kernels
from diffusion_core.requests import CompletionRequest
engine = Engine(EngineConfig(model=sys.argv[1], edit_model=sys.argv[1], device="cpu", num_threads=1))
engine.start()
answer = engine.submit(CompletionRequest(prefix="def f(", max_tokens=3)).future.result(60)
health = engine.health()
print(answer.num_tokens > 0, health.decoding[0].native, "|".join(health.notices), why_no_kernels(), sep=";")
engine.close()
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNMASK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.skipif(
    not kinds.usable_kinds() or not find_compiler(), reason="no instructions for them here, or no compiler"
)
def test_where_they_can_be_had_they_are() -> None:
    """All other tests of kernels are skipped where there are none."""
    assert library.why_no_kernels() == ""


@needs_kernels
def test_they_are_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled_library(KIND.flags)
    assert made.parent == cache / "kernels"
    assert [path.name for path in made.parent.iterdir()] == [made.name], "nothing else is left"
    monkeypatch.setenv("CXX", "/nothing/there")
    before = made.stat().st_mtime_ns
    assert compiled_library(KIND.flags) == made
    assert made.stat().st_mtime_ns == before


@needs_kernels
def test_others_may_not_have_written_what_is_loaded(cache: Path) -> None:
    made = compiled_library(KIND.flags)
    before = made.stat().st_mtime_ns
    made.chmod(0o777)
    assert compiled_library(KIND.flags).stat().st_mtime_ns > before, "made anew"
    assert not made.stat().st_mode & 0o022
    made.parent.chmod(0o777)
    made.unlink()
    with pytest.raises(CompilationFailed, match="others may write to it"):
        compiled_library(KIND.flags)


@needs_kernels
def test_a_damaged_file_is_made_anew(cache: Path) -> None:
    made = compiled_library(KIND.flags)
    whole = made.read_bytes()
    made.write_bytes(b"not a library")
    assert library._open(KIND).unmask_enable() == 0
    assert made.read_bytes()[:4] == whole[:4]


@needs_kernels
def test_a_machine_without_a_compiler_takes_what_was_laid_ready(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ready"
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_core.kernels", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(list(folder.iterdir())) == len(kinds.KINDS)
    monkeypatch.setenv("CXX", "/nothing/there")
    monkeypatch.setenv(compiler.FOLDER, str(folder))
    assert compiled_library(KIND.flags).parent == folder
    assert library._open(KIND).unmask_enable() == 0
    folder.chmod(0o777)
    compiled_library(KIND.flags).chmod(0o777)
    with pytest.raises(CompilationFailed, match="could not be run"):
        compiled_library(KIND.flags)


@needs_kernels
@pytest.mark.parametrize("kind", [kind.name for kind in kinds.usable_kinds()[1:]])
def test_kinds_for_other_cpus_compute_the_same(kind: str) -> None:
    """What the best kind here is tested for, of those that this CPU can run besides."""
    modules = [str(ROOT / "tests" / "model" / f"test_native_{name}.py") for name in ("matrix", "forward")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *modules],
        env={**os.environ, kinds.SWITCH: kind}, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert " passed" in summary and "skipped" not in summary, summary


def test_which_kinds_a_cpu_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kinds.SWITCH, raising=False)
    monkeypatch.setattr(kinds, "why_not_here", lambda: "")
    every = frozenset(need for kind in kinds.KINDS for need in kind.needs)
    for lacking, names in (
        ("", ["amx", "avx512_bf16", "avx512", "avx_vnni", "avx2"]),
        ("amx_int8", ["avx512_bf16", "avx512", "avx_vnni", "avx2"]),
        ("avx512_bf16", ["avx512", "avx_vnni", "avx2"]),
        ("avx512_vnni", ["avx_vnni", "avx2"]),
        ("avx_vnni", ["amx", "avx512_bf16", "avx512", "avx2"]),
        ("avx2", ["amx", "avx512_bf16", "avx512"]),
        ("fma", []),
    ):
        monkeypatch.setattr(kinds, "_cpu_flags", lambda lacking=lacking: every - {lacking})
        assert [kind.name for kind in kinds.usable_kinds()] == names
    monkeypatch.setattr(kinds, "_cpu_flags", lambda: every)
    for wanted, names in (("off", []), ("avx512", ["avx512"]), ("AMX", ["amx"]), ("nonsense", [])):
        monkeypatch.setenv(kinds.SWITCH, wanted)
        assert [kind.name for kind in kinds.usable_kinds()] == names
    monkeypatch.setattr(kinds, "why_not_here", lambda: "another system")
    monkeypatch.delenv(kinds.SWITCH)
    assert kinds.usable_kinds() == ()


@needs_kernels
def test_pulling_a_model_that_they_serve_prepares_them(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "why_no_kernels", lambda: compiled_library(KIND.flags) and "")
    (tmp_path / "weights").write_bytes(b"x" * 1000)
    prepare_kernels(tmp_path)
    assert library.must_compile(), "a small model is served by torch"
    monkeypatch.setattr(pulling, "_SERVED_BYTES", 1000)
    prepare_kernels(tmp_path)
    assert not library.must_compile()
    prepare_kernels(tmp_path)
    assert capfd.readouterr().err.count("compiling kernels") == 1


@needs_kernels
@pytest.mark.parametrize("wrong", ["scale of halves", "one input", "pieces of many rows"])
def test_what_multiplies_wrongly_is_not_used(
    wrong: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in compiler._SOURCES.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    if wrong == "pieces of many rows" and KIND.name != "amx":
        pytest.skip("only tiles cut inputs into pieces")
    faults = {
        "scale of halves": ("layout.h", "kFiner = 1.0f / 128.0f", "kFiner = 1.0f / 127.0f"),
        "one input": (
            "matrix.h",
            "left = to.inputs - k * kTileInputs",
            "left = std::min(3, to.inputs - k * kTileInputs)",
        ),
        "pieces of many rows": ("with_tiles.h", "steps, begin == 0,", "steps, true,"),
    }
    name, right, fault = faults[wrong]
    text = (tmp_path / name).read_text()
    assert right in text
    (tmp_path / name).write_text(text.replace(right, fault))
    monkeypatch.setattr(compiler, "_SOURCES", tmp_path)
    with pytest.raises(CompilationFailed, match="does not multiply exactly"):
        library._open(KIND)


def test_other_sources_have_another_file(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiler._library_name()
    for source in compiler._SOURCES.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(compiler, "_SOURCES", tmp_path)
    assert compiler._library_name() == first
    (tmp_path / "team.h").write_text("// other")
    assert compiler._library_name() != first


def test_what_the_compiler_says_is_told(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "c++"
    fake.write_text("#!/bin/sh\necho 'x.h:1: error: unknown flag -mamx-tile' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    with pytest.raises(CompilationFailed, match="unknown flag -mamx-tile"):
        compiled_library(KIND.flags)
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    with pytest.raises(CompilationFailed, match="could not be run"):
        compiled_library(KIND.flags)
    assert list((cache / "kernels").iterdir()) == []


def test_the_compiler_that_is_named_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "ccache 'my g++'")
    assert find_compiler() == ["ccache", "my g++"]
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_compiler() == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert find_compiler() == [sys.executable, "-m", "ziglang", "c++"]


@pytest.mark.skipif(not kinds.usable_kinds(), reason="this CPU has no instructions for them")
@pytest.mark.parametrize("case", ["no compiler", "switched off", "compiled", "an older CPU"])
def test_an_engine_answers_with_and_without(case: str, tmp_path: Path) -> None:
    from helpers.tiny_models import save_tiny_checkpoint

    has_kernels = case in ("compiled", "an older CPU")
    if has_kernels and (reason := library.why_no_kernels()):
        pytest.skip(reason)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32, "num_heads": 2}
    base = save_tiny_checkpoint(tmp_path / "base", **sizes)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "UNMASK_CACHE_DIR": str(tmp_path / "cache")}
    if case == "no compiler":
        environment |= {"CXX": str(tmp_path / "none")}
    if case == "switched off":
        environment |= {kinds.SWITCH: "off"}
    if case == "an older CPU":  # torch neither computes in bfloat16 there nor multiplies 8 bits without overflow
        oldest = kinds.usable_kinds()[-1].name
        environment |= {kinds.SWITCH: oldest, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(base)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answered, native, notices, reason = done.stdout.strip().split(";")
    assert answered == "True"
    assert native == str(has_kernels)
    assert ("compiled kernels" in notices) is (case == "no compiler")
    assert bool(reason) is not has_kernels
