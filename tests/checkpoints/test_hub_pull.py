"""Pulling from a model hub: huggingface_hub and our download against a real HTTP server on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.hub_server import COMMIT, REPO, Hub, run_hub
from helpers.part_wheels import NAME, make_index, registry_text
from helpers.pull_process import start_pull

from diffusion_core.checkpoints import hub_source
from diffusion_core.checkpoints.pull import pull_entry
from diffusion_core.checkpoints.registry import HubSource, ModelEntry, parse_registry
from diffusion_core.checkpoints.sources import SourceUnreachable
from diffusion_core.checkpoints.store import is_downloaded, partial_folder
from diffusion_core.errors import CheckpointError

CONTENT = os.urandom(1_500_000)
TEXT = registry_text([b"not on the index"], hub=REPO)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with run_hub(CONTENT) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield running


@pytest.fixture
def entry() -> ModelEntry:
    return parse_registry(TEXT)[NAME]


def partial_path(hub: Hub) -> Path:
    return partial_folder(NAME, "hub") / f"tiny.gguf.{hub.sha256[:16]}.partial"


def ranges(hub: Hub) -> list[str]:
    return [asked for method, path, asked in hub.requests if method == "GET" and path == "/storage/object"]


def test_a_file_is_fetched_and_verified_against_the_announced_hash(hub: Hub, entry: ModelEntry) -> None:
    seen: list[tuple[int, int]] = []
    folder = pull_entry(entry, source="hub", progress=lambda done, total, what: seen.append((done, total)))
    assert (folder / "tiny.gguf").read_bytes() == CONTENT
    receipt = json.loads((folder / "receipt.json").read_text())
    assert receipt["sha256"] == hub.sha256
    assert receipt["origin"] == f"hub: {REPO} at {COMMIT}"
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert ranges(hub) == [""]


def test_a_cut_connection_is_resumed_where_it_broke(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.cut_after = [400_000, 300_000]
    folder = pull_entry(entry, source="hub")
    assert (folder / "tiny.gguf").read_bytes() == CONTENT
    first, second, third = ranges(hub)
    assert first == ""
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in (second, third)]
    assert starts == [400_000, 700_000]
    assert set(hub.tokens_at_hub) == {"Bearer hf_secret"}
    assert set(hub.tokens_at_storage) == {""}, "the hub's token must not travel to another host"


def test_after_kill_9_the_next_process_resumes(hub: Hub, entry: ModelEntry, tmp_path: Path) -> None:
    registry = tmp_path / "registry.toml"
    registry.write_text(TEXT)
    hub.cut_after = [600_000]  # so that the first process surely stops before the end
    process = start_pull(registry, NAME, "hub", stop_at=100_000)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "stopping\n":
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    hub.cut_after = []
    # The process may die with a piece still in its write buffer: what counts is that the rest is asked for.
    kept = partial_path(hub).stat().st_size
    hub.requests.clear()
    folder = pull_entry(entry, source="hub")
    assert (folder / "tiny.gguf").read_bytes() == CONTENT
    assert ranges(hub) == [f"bytes={kept}-" if kept else ""]


def test_what_an_earlier_process_fetched_is_continued(hub: Hub, entry: ModelEntry) -> None:
    partial_path(hub).parent.mkdir(parents=True)
    partial_path(hub).write_bytes(CONTENT[:1_000_000])
    assert (pull_entry(entry, source="hub") / "tiny.gguf").read_bytes() == CONTENT
    assert ranges(hub) == ["bytes=1000000-"]


def test_a_server_that_ignores_ranges_is_read_from_the_start(hub: Hub, entry: ModelEntry) -> None:
    partial_path(hub).parent.mkdir(parents=True)
    partial_path(hub).write_bytes(CONTENT[:1_000_000])
    hub.ignore_range = True
    assert (pull_entry(entry, source="hub") / "tiny.gguf").read_bytes() == CONTENT


def test_damage_in_what_was_kept_is_found_and_removed(hub: Hub, entry: ModelEntry) -> None:
    partial_path(hub).parent.mkdir(parents=True)
    partial_path(hub).write_bytes(b"x" + CONTENT[1:500_000])
    with pytest.raises(
        CheckpointError, match=rf"wrong content and was removed: sha256 \w{{64}}, expected {hub.sha256}"
    ):
        pull_entry(entry, source="hub")
    assert not partial_path(hub).exists()
    assert (pull_entry(entry, source="hub") / "tiny.gguf").read_bytes() == CONTENT


def test_content_that_is_not_what_was_announced_is_removed(hub: Hub, entry: ModelEntry) -> None:
    hub.announced = "ab" * 32
    with pytest.raises(CheckpointError, match=f"expected {'ab' * 32}"):
        pull_entry(entry, source="hub")
    assert not partial_path(hub).exists()
    assert not is_downloaded(NAME)


def test_an_expected_hash_that_is_not_announced_is_refused_before_the_download(hub: Hub, tmp_path: Path) -> None:
    source = HubSource(repo=REPO, revision="main", file="tiny.gguf", sha256="cd" * 32)
    with pytest.raises(CheckpointError, match=f"sha256 {hub.sha256}, not {'cd' * 32}"):
        hub_source.pull_from_hub(source, tmp_path, lambda *_: None)
    assert ranges(hub) == []


def test_a_file_without_an_announced_sha256_is_refused(hub: Hub, entry: ModelEntry) -> None:
    hub.announced = "d41d8cd98f00b204e9800998ecf8427e"  # a git hash, as small files have
    with pytest.raises(CheckpointError, match=r"announces no size or sha256 for tiny\.gguf"):
        pull_entry(entry, source="hub")


def test_a_connection_that_breaks_without_progress_is_given_up(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_source.time, "sleep", lambda _: None)
    hub.cut_after = [200_000] + [0] * 10
    with pytest.raises(SourceUnreachable, match=r"broke 5 times without progress .* run the same command again"):
        pull_entry(entry, source="hub")
    assert partial_path(hub).read_bytes() == CONTENT[:200_000]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "the hub has no tiny.gguf of someone/tiny-GGUF"),
        (401, "log in with `hf auth login`"),
        (403, "refuses access"),
    ],
)
def test_refusals_are_explained(hub: Hub, entry: ModelEntry, status: int, message: str) -> None:
    hub.status = status
    with pytest.raises(CheckpointError, match=re.escape(message)):
        pull_entry(entry, source="hub")


def test_no_hub_is_explained(entry: ModelEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(SourceUnreachable, match="the hub cannot be reached: ConnectError"):
        pull_entry(entry, source="hub")


def test_without_a_named_source_an_unreachable_index_is_followed_by_the_hub(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "PIP_FIND_LINKS"):
        monkeypatch.delenv(variable, raising=False)
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
    }.items():
        monkeypatch.setenv(name, value)
    folder = pull_entry(entry)
    assert json.loads((folder / "receipt.json").read_text())["source"] == "hub"


def test_another_source_replaces_what_came_from_the_first(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(tmp_path / "index", [b"first part", b"second"], hub=REPO)
    for name, value in index.pip_environment.items():
        monkeypatch.setenv(name, value)
    folder = pull_entry(index.entry)
    assert (folder / "tiny.gguf").read_bytes() == index.content
    assert pull_entry(index.entry, source="hub") == folder
    assert (folder / "tiny.gguf").read_bytes() == CONTENT
    assert [path.name for path in folder.parent.iterdir()] == [NAME], "the replaced copy must not stay"
