"""The prepared GPU measurement runs through on a CPU with a tiny model, and its transport gives files back whole."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from bench import gpu, transport
from helpers.tiny_models import tiny_adapter, tiny_config

from diffusion_core.checkpoints.adapter import GatedAdapterMetadata, save_drafter


def test_all_parts_run_and_the_texts_agree(tmp_path: Path) -> None:
    out, drafter = tmp_path / "out.json", tmp_path / "drafter"
    save_drafter(drafter, GatedAdapterMetadata(rank=4, alpha=4.0), tiny_adapter(tiny_config()).named_tensors())
    gpu.main(
        ["--tiny", "--device", "cpu", "--dtype", "float32", "--drafter", str(drafter), "--repeats", "1",
         "--max-tokens", "12", "--crowds", "1", "3", "--crowd-tokens", "6", "--out", str(out)]
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert found["errors"] == {}
    assert found["skipped"] == []
    assert found["forwards"]["rows"]["64"]["exact"]["in_a_row_ms"] > 0
    assert found["streams"]["autoregressive/exact"]["tokens_per_forward"] == 1
    assert {"verified/exact", "verified+slots/exact", "slots_only/exact"} < set(found["equality"])
    assert all(row["identical"] == row["compared"] == 4 for row in found["equality"].values())
    assert found["slots"]["exact"]["slots"]["alone_ms"] > 0
    assert found["streams"]["confidence/exact"]["tokens"] > 0
    assert all(row["same_token"] == row["rows"] for row in found["bits"]["exact"].values())
    assert found["crowds"]["3"]["tokens"] == 18
    assert found["profile"]["exact"]["largest"]
    assert found["products"]["down"]["torch"]["us"]["8"] > 0


def test_without_time_every_part_is_said_to_be_skipped(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    gpu.main(["--tiny", "--device", "cpu", "--dtype", "float32", "--seconds", "0", "--out", str(out)])
    found = json.loads(out.read_text())
    assert "streams" in found["skipped"]
    assert "crowds" in found["skipped"]
    assert "streams" not in found


def test_files_are_cut_and_joined(tmp_path: Path) -> None:
    root, draw = tmp_path / "here", random.Random(0)
    sizes = {"model/weights": 300_000, "model/deep/tokens.json": 17, "model/empty": 0, "data.gz": 150_000}
    for name, size in sizes.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(draw.randbytes(size))
    pieces = tmp_path / "pieces"
    assert transport.cut(root, ["model", "data.gz"], pieces, 100_000) == 5
    assert all((folder / "data").stat().st_size <= 100_000 for folder in pieces.iterdir())
    there = tmp_path / "there"
    for folder in sorted(pieces.iterdir(), reverse=True):  # carried over one by one, in any order
        shutil.copytree(folder, there / folder.name)
    assert sorted(transport.join([there], tmp_path / "joined")) == sorted(sizes)
    for name in sizes:
        assert (tmp_path / "joined" / name).read_bytes() == (root / name).read_bytes()
    (there / "002" / "data").write_bytes(b"x" * 100_000)
    with pytest.raises(SystemExit, match="damaged"):
        transport.join([there], tmp_path / "again")
    shutil.rmtree(there / "003")
    with pytest.raises(SystemExit, match="003"):
        transport.join([there], tmp_path / "again")
