"""Whole repositories of a hub: huggingface_hub and our download against a real HTTP server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from helpers.family_fixtures import fixture_folder, full_logits, read_golden
from helpers.hub_repositories import RepositoryHub, run_repository_hub

from diffusion_core.checkpoints.licence import LicenceTerms
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.checkpoints.pull import pull
from diffusion_core.checkpoints.pull_repository import is_repository, name_of_repository
from diffusion_core.checkpoints.sources import SourceUnreachable
from diffusion_core.checkpoints.store import is_downloaded, locate
from diffusion_core.errors import CheckpointError

REPO, A2D = "ByteDance-Seed/Stable-DiffCoder-8B-Base", "dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1"
OWN, NAME = "someone/my-model", "stable-diffcoder-8b-base"
STRICT = "Salesforce/CoDA-v0-Instruct"
CPU = torch.device("cpu")


def files_of(family: str, **more: bytes) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in fixture_folder(family).iterdir()} | more


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[RepositoryHub]:
    code = {"modeling_stable_diffcoder.py": b"raise SystemExit", "assets/picture.png": b"png"}
    repositories = {
        REPO: files_of("stable-diffcoder", **code),
        A2D: files_of("a2d-qwen3-bd3lm"),
        OWN: files_of("a2d-qwen3-bd3lm"),
        STRICT: files_of("coda"),
        "someone/a-copy": files_of("coda"),
        "Another/My-Model": files_of("a2d-qwen3-bd3lm"),
        "someone/Qwen2.5-Coder-0.5B": files_of("stable-diffcoder"),
        "someone/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    }
    with run_repository_hub(repositories) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield running


def test_a_repository_is_pulled_loads_by_name_and_brings_no_code(hub: RepositoryHub) -> None:
    folder = pull(REPO)
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in fixture_folder("stable-diffcoder").iterdir()} | {"receipt.json"}
    receipt = json.loads((folder / "receipt.json").read_text())
    assert (receipt["name"], receipt["family"], receipt["source"]) == (NAME, "stable-diffcoder", "hub")
    checkpoint = load_checkpoint(NAME, dtype=torch.float32, device=CPU)
    ids, expected = read_golden("stable-diffcoder").logits[0]
    torch.testing.assert_close(full_logits(checkpoint, ids), expected, rtol=0, atol=1e-4)
    hub.fetched.clear()
    assert pull(REPO) == folder
    assert hub.fetched == [], "what is here is not fetched again"


def test_what_its_files_do_not_show_is_known_of_a_listed_repository_and_asked_of_others(hub: RepositoryHub) -> None:
    pull(A2D)
    assert load_checkpoint("tiny-a2d-0.6b-bd3lm", dtype=torch.float32, device=CPU).diffusion_config.block_size == 32
    hub.fetched.clear()
    with pytest.raises(CheckpointError, match="--family a2d-qwen3-bd3lm"):
        pull(OWN)
    assert all(not name.endswith(".safetensors") for name, _ in hub.fetched), "refused before the weights"
    pull(OWN, family="a2d-qwen3-bd3lm")
    assert load_checkpoint("my-model", dtype=torch.float32, device=CPU).diffusion_config.block_size == 32


def test_a_repository_never_replaces_another_checkpoint_of_its_name(hub: RepositoryHub) -> None:
    said: list[str] = []
    base = pull("someone/Qwen2.5-Coder-0.5B", progress=lambda done, total, what: said.append(what))
    assert base.name == "someone-qwen2.5-coder-0.5b", "the registry's model of that name is another file"
    assert "kept as someone-qwen2.5-coder-0.5b: qwen2.5-coder-0.5b is another model" in said
    first = pull(OWN, family="a2d-qwen3-bd3lm")
    second = pull("Another/My-Model", family="a2d-qwen3-bd3lm")
    assert (first.name, second.name) == ("my-model", "another-my-model")
    assert OWN in json.loads((first / "receipt.json").read_text())["origin"]
    assert pull("Another/My-Model", family="a2d-qwen3-bd3lm") == second and pull(OWN) == first


def test_a_cut_connection_is_resumed(hub: RepositoryHub) -> None:
    size = len(hub.repositories[REPO]["model.safetensors"])
    hub.cut_after = [10**9] * len([n for n in hub.repositories[REPO] if n.endswith(".json")]) + [size // 2]
    pull(REPO)
    assert ("model.safetensors", f"bytes={size // 2}-") in hub.fetched


def test_wrong_content_is_removed_and_both_hashes_are_named(
    hub: RepositoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = hub.listing(REPO)
    monkeypatch.setattr(hub, "listing", lambda repo: listing)
    for name, message in (
        ("config.json", r"config\.json from .* has the wrong content and was removed: git hash"),
        ("model.safetensors", r"model\.safetensors from .* has the wrong content and was removed: sha256"),
    ):
        original = hub.repositories[REPO][name]
        hub.repositories[REPO][name] = original[:-1] + b"X"
        with pytest.raises(CheckpointError, match=message):
            pull(REPO)
        hub.repositories[REPO][name] = original
    assert not is_downloaded(NAME)
    pull(REPO)


def test_a_licence_is_settled_before_anything_or_at_least_the_weights_are_fetched(hub: RepositoryHub) -> None:
    with pytest.raises(CheckpointError, match=r"coda-1\.7b was not accepted: CC-BY-NC-4\.0 .*--accept-licence CC-BY"):
        pull(STRICT)
    with pytest.raises(CheckpointError, match=r"is CC-BY-NC-4\.0 .*, not MIT"):
        pull("coda-1.7b", accept_licence="MIT")
    assert hub.fetched == [], "of a known name the licence is known"
    asked: list[LicenceTerms] = []

    def answer(name: str, terms: LicenceTerms) -> bool:
        asked.append(terms)
        return len(asked) > 1

    with pytest.raises(CheckpointError, match="the licence of a-copy was not accepted"):
        pull("someone/a-copy", ask=answer)
    assert hub.fetched and all(not name.endswith(".safetensors") for name, _ in hub.fetched)
    pull("someone/a-copy", ask=answer)
    assert [terms.id for terms in asked] == ["CC-BY-NC-4.0"] * 2 and asked[0].url.startswith("https://")
    folder = pull(STRICT, accept_licence="cc-by-nc-4.0")
    assert json.loads((folder / "receipt.json").read_text())["accepted_licence"] == "CC-BY-NC-4.0"
    assert pull("coda-1.7b") == folder, "accepted once is accepted"


def test_what_cannot_be_pulled_is_explained(hub: RepositoryHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"the hub .*someone/else"):
        pull("someone/else")
    with pytest.raises(CheckpointError, match="is a pickle"):
        pull("someone/pickled")
    with pytest.raises(CheckpointError, match=f"does not exist; of the hub it is fetched by `unmask pull {REPO}`"):
        locate(REPO)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceUnreachable, match="the hub cannot be reached"):
        pull(REPO)


def test_names_of_repositories() -> None:
    assert is_repository(REPO)
    assert not any(map(is_repository, ("plain", "./here/there", "a/b/c", "/a")))
    assert name_of_repository("Efficient-Large-Model/Fast_dLLM_v2_7B") == "fast_dllm_v2_7b"
    assert name_of_repository("alice/Modèle+é") == "mod-le"
