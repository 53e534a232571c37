"""Damaged GGUF files: whatever the bytes are, the answer is a checkpoint or a CheckpointError that names the file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from helpers.tiny_checkpoints import save_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusion_core.checkpoints.foreign import open_foreign
from diffusion_core.checkpoints.gguf_file import read_gguf
from diffusion_core.checkpoints.weights import read_target
from diffusion_core.errors import CheckpointError


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", "llama").path


def read_everything(path: Path) -> None:
    with open_foreign(path) as foreign:
        for target in foreign.targets:
            for rows in read_target(foreign.source, target, torch.bfloat16):
                assert rows.isfinite().all()


def test_a_file_that_ends_early_names_the_first_tensor_beyond_the_end(tmp_path: Path, intact: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(intact.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"gguf is truncated: tensor \S+ ends at byte \d+, the file has \d+"):
        read_gguf(path)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(fraction=st.floats(0, 1))
def test_a_file_cut_anywhere_is_an_error_that_names_it(tmp_path: Path, intact: Path, fraction: float) -> None:
    path = tmp_path / "model.gguf"
    content = intact.read_bytes()
    path.write_bytes(content[: int(fraction * (len(content) - 64))])
    with pytest.raises(CheckpointError, match=r"model\.gguf"):
        read_everything(path)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 12_000), value=st.integers(0, 255), width=st.sampled_from([1, 4, 8]))
def test_overwritten_header_bytes_give_an_error_or_a_checkpoint(
    tmp_path: Path, intact: Path, place: int, value: int, width: int
) -> None:
    damaged = bytearray(intact.read_bytes())
    damaged[place : place + width] = bytes([value]) * width
    path = tmp_path / "model.gguf"
    path.write_bytes(damaged)
    try:
        read_everything(path)
    except CheckpointError as error:
        assert str(error)


def test_impossible_counts_do_not_allocate(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**62, 2**62) + b"\xff" * 64)
    with pytest.raises(CheckpointError, match="is damaged or truncated: a metadata key"):
        read_gguf(path)
    key = struct.pack("<Q", 1) + b"k"
    array = struct.pack("<IIQ", 9, 8, 2**60)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + array + b"\0" * 64)
    with pytest.raises(CheckpointError, match="is damaged or truncated: metadata k"):
        read_gguf(path)


def test_other_versions_and_empty_files_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    with pytest.raises(CheckpointError, match=r"GGUF version 50331648 is not supported: .* \(a big-endian file\?\)"):
        read_gguf(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.gguf cannot be read"):
        read_gguf(path)
    path.write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="ends within its header"):
        read_gguf(path)
