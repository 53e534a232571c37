"""An adapter as it is served: pairs in float32, changes in place, and a small head that reads slots."""

import pytest
import torch
from helpers.tiny_models import tiny_adapter, tiny_transformer

from diffusion_core.errors import CheckpointError
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.packed import can_pack
from diffusion_core.model.transformer import Transformer

IDS = torch.tensor([250, 3, 7, 100, 41])


# What the kernels of this CPU take.
DTYPE = torch.bfloat16 if can_pack(torch.device("cpu"), torch.bfloat16) else torch.float32


@pytest.fixture
def base() -> Transformer:
    return tiny_transformer("qwen2", 0).to(DTYPE)


def served(base: Transformer, *, serve: bool) -> GatedAdapter:
    adapter = tiny_adapter(base.config).to(DTYPE)
    adapter.keep_to(IDS)
    adapter.bind(base, serve=serve)
    return adapter


@torch.inference_mode()
def test_served_changes_are_those_of_the_pairs(base: Transformer) -> None:
    plain, fast = served(base, serve=False), served(base, serve=True)
    generator = torch.Generator().manual_seed(1)
    for name, (num_in, num_out) in plain._shapes.items():
        x = torch.randn(1, 5, num_in, generator=generator).to(DTYPE)
        y = torch.randn(1, 5, num_out, generator=generator).to(DTYPE)
        expected = plain.change(name, x[:, 2:], y[:, 2:])
        assert expected.data_ptr() != y.data_ptr(), "without serving nothing changes in place"
        clean = y[:, :2].clone()
        slots = y[:, 2:]
        assert fast.change(name, x[:, 2:], slots) is slots
        torch.testing.assert_close(slots, expected, atol=0.02, rtol=0.02)
        assert torch.equal(y[:, :2], clean)


@pytest.mark.parametrize("serve", [False, True])
@torch.inference_mode()
def test_guesses_are_the_best_of_what_is_drafted(base: Transformer, serve: bool) -> None:
    adapter = served(base, serve=serve)
    hidden = torch.randn(9, base.config.hidden_size, generator=torch.Generator().manual_seed(2)).to(DTYPE)
    scores = hidden.float() @ base.head_weight[IDS].float().T
    assert adapter.guess(hidden) == IDS[scores.argmax(-1)].tolist()


def test_a_drafter_without_a_list_drafts_everything(base: Transformer) -> None:
    adapter = tiny_adapter(base.config)
    adapter.bind(base)
    assert not adapter.has_own_head
    assert "token_ids" not in adapter.named_tensors()


def test_the_list_is_stored_with_the_tensors(base: Transformer) -> None:
    stored = served(base, serve=False).named_tensors()
    loaded = GatedAdapter(base.config, rank=tiny_adapter(base.config).rank, alpha=1.0)
    loaded.load_tensors(stored)
    assert loaded.token_ids is not None
    assert loaded.token_ids.tolist() == IDS.tolist()


@pytest.mark.parametrize("ids", [[], [-1, 2], [0, 10**6], [[1, 2]]])
def test_a_list_that_is_none_is_refused(base: Transformer, ids: list[int]) -> None:
    with pytest.raises(CheckpointError, match="token_ids must be a list of numbers from 0 to"):
        tiny_adapter(base.config).keep_to(torch.tensor(ids, dtype=torch.long))
