"""Adapting a base: blocks, targets, and that a training forward is a serving forward."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.tiny_models import tiny_adapter, tiny_draft_head, tiny_transformer
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import causal_context
from diffusion_core.model.transformer import Transformer
from train.adaptation.blocks import BlockShape, DraftBlocks, draw_blocks
from train.adaptation.clean_pass import RememberedPasses, join_samples, run_clean_pass
from train.adaptation.draft_loss import count_accepted, draft_loss, make_targets, row_weights
from train.adaptation.tuning import weigh_targets
from train.adaptation.vocabulary import choose_vocabulary, invert
from train.data.samples import Sample
from train.objectives.adapt_draft_head import HeadForward
from train.objectives.adapt_gated import GatedForward

SHAPE = BlockShape(num_blocks=6, least=2, most=5, full_mask_share=0.4, noise_share=0.3, has_anchor=True)


def make_sample(length: int, num_prompt: int = 0, seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 250, (length,), generator=generator)
    changed = torch.ones(length - num_prompt, dtype=torch.bool)
    return Sample(tokens, num_prompt, "document", changed, tokens[:0], id=f"sample/{seed}")


def full_blocks(tokens: torch.Tensor, start: int, size: int, *, has_anchor: bool) -> DraftBlocks:
    """One block of masks (behind an anchor)."""
    is_masked = torch.ones(1, 1, size, dtype=torch.bool)
    is_masked[..., 0] = not has_anchor
    none = torch.zeros_like(is_masked)
    held = tokens[:, start : start + size].unsqueeze(1)
    return DraftBlocks(
        torch.tensor([[start]]), held, is_masked, none, ~none, torch.tensor([[True]]), torch.tensor([[False]]),
        is_causal=has_anchor,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 60), st.integers(0, 40), st.integers(0, 2**31))
def test_blocks_stay_inside_and_see_what_precedes_them(length: int, num_prompt: int, seed: int) -> None:
    batch = join_samples([make_sample(length, min(num_prompt, length - 1)), make_sample(length + 5)])
    generator = torch.Generator().manual_seed(seed)
    blocks = draw_blocks(batch.tokens, batch.lengths, batch.prompts, SHAPE, generator)
    last_target = blocks.starts.unsqueeze(-1) + torch.arange(SHAPE.most) + 1
    assert bool(
        (last_target[blocks.is_used] < batch.lengths[:, None, None].expand_as(last_target)[blocks.is_used]).all()
    )
    assert bool((blocks.starts >= 1).all()) and bool(blocks.is_used[..., 0].all())
    assert not blocks.is_masked[..., 0].any() and not (blocks.is_wrong & blocks.is_masked).any()
    true = batch.tokens.gather(1, blocks.positions.clamp_max(batch.tokens.shape[1] - 1)).view_as(blocks.tokens)
    assert torch.equal(blocks.is_wrong & blocks.is_used, (blocks.tokens != true) & blocks.is_used)
    visible = blocks.visibility(batch.tokens.shape[1])
    size, num_clean = SHAPE.most, batch.tokens.shape[1]
    for b, n in ((0, 0), (1, 3)):
        for offset in range(size):
            row = visible[b, n * size + offset]
            assert row[:num_clean].sum() == blocks.starts[b, n] and bool(row[: int(blocks.starts[b, n])].all())
            inside = row[num_clean:].view(-1, size)
            # Revealed rows are causal behind an anchor; masked ones see the whole block; no row sees another block.
            expected = blocks.is_used[b, n].clone()
            if not blocks.is_masked[b, n, offset]:
                expected[offset + 1 :] = False
            expected[offset] = True
            assert torch.equal(inside[n], expected) and inside.sum() == expected.sum()


def test_a_block_is_bidirectional_without_an_anchor() -> None:
    batch = join_samples([make_sample(40)])
    shape = dataclasses.replace(SHAPE, has_anchor=False)
    blocks = draw_blocks(batch.tokens, batch.lengths, batch.prompts, shape, torch.Generator().manual_seed(3))
    visible = blocks.visibility(40)[0, : shape.most, 40 : 40 + shape.most]
    used = blocks.is_used[0, 0]
    assert bool(visible[:, used].all())


def test_shares_of_known_and_masked_blocks() -> None:
    batch = join_samples([make_sample(200)])
    shape = BlockShape(
        num_blocks=2000, least=4, most=6, full_mask_share=0.2, noise_share=0.5, has_anchor=True, known_share=0.5,
        prefix_share=1.0,
    )  # fmt: skip
    blocks = draw_blocks(batch.tokens, batch.lengths, batch.prompts, shape, torch.Generator().manual_seed(5))
    known, full = blocks.is_known[0], blocks.is_full[0]
    assert not (known & full).any()
    assert abs(float(known.float().mean()) - 0.5) < 0.05 and abs(float(full.float().mean()) - 0.2) < 0.05
    assert not blocks.is_masked[0, known].any() and not blocks.is_wrong[0, known].any()
    assert bool(blocks.is_masked[0, full, 1:].all())
    # From the left: behind a masked row all rows are masked.
    masked = blocks.is_masked[0]
    assert bool((masked[:, 1:] >= masked[:, :-1]).all())


def test_a_batch_that_comes_again_is_run_through_the_base_once() -> None:
    base = tiny_transformer("qwen2", seed=1)
    tokens = join_samples([make_sample(30), make_sample(24, seed=2)]).tokens
    expected = run_clean_pass(base, tokens, (1, 2))
    for keeps_context in (True, False):
        passes = RememberedPasses(base, (1, 2), keeps_context=keeps_context)
        first = passes.get(0, tokens)
        again = passes.get(0, torch.zeros_like(tokens))  # what it holds counts, not what is given
        assert torch.equal(first.hidden, again.hidden)
        assert first.hidden.dtype == base.dtype
        torch.testing.assert_close(first.hidden, expected.hidden, rtol=1e-2, atol=1e-2)
        for mine, theirs in zip(first.tapped, expected.tapped, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-2)
        if keeps_context:
            for mine, theirs in zip(first.context.at(1), expected.context.at(1), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-2)


def test_blocks_follow_from_the_generator_alone() -> None:
    batch = join_samples([make_sample(40)])
    drawn = [
        draw_blocks(batch.tokens, batch.lengths, batch.prompts, SHAPE, torch.Generator().manual_seed(7))
        for _ in range(2)
    ]
    assert torch.equal(drawn[0].tokens, drawn[1].tokens) and torch.equal(drawn[0].is_masked, drawn[1].is_masked)


@pytest.fixture
def base() -> Transformer:
    return tiny_transformer("qwen2", seed=5)


def test_a_gated_adapter_trains_on_what_it_serves(base: Transformer) -> None:
    adapter, tokens, start, size = tiny_adapter(base.config), make_sample(30).tokens.unsqueeze(0), 17, 4
    blocks = full_blocks(tokens, start, size, has_anchor=False)
    trained = GatedForward(base)(adapter, run_clean_pass(base, tokens), blocks)
    cache = KVCache(base.config, capacity=64, dtype=torch.float32)
    rows = torch.cat((tokens[:, :start], torch.full((1, size), adapter.mask_token_id)), dim=1)
    visible = causal_context(start, (size,), (start,))
    served = base(rows, torch.arange(start + size)[None], visible, cache=cache, adapter=adapter, first_slot=start)
    torch.testing.assert_close(trained, served[:, start:], atol=1e-5, rtol=1e-5)


def test_a_draft_head_trains_on_what_it_serves(base: Transformer) -> None:
    head, tokens, start, size = tiny_draft_head(base, num_steps=1), make_sample(30).tokens.unsqueeze(0), 17, 4
    blocks = full_blocks(tokens, start, size, has_anchor=True)
    clean = run_clean_pass(base, tokens, head.tap_layers)
    best = head.scores(HeadForward(base, head.tap_layers)(head, clean, blocks)[0]).argmax(-1)
    served = KVCache(head.config, capacity=64, dtype=torch.float32)
    head.read([x[:, :9] for x in clean.tapped], 0, served)
    carried = head.read([x[:, 9:start] for x in clean.tapped], 9, served)
    assert head.draft(base, int(tokens[0, start]), carried, size, served) == head.token_ids[best].tolist()


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 9])
def test_a_draft_has_its_length_whatever_the_steps(base: Transformer, num_steps: int) -> None:
    head, tokens = tiny_draft_head(base, num_steps=num_steps), make_sample(20).tokens.unsqueeze(0)
    clean = run_clean_pass(base, tokens, head.tap_layers)
    cache = KVCache(head.config, capacity=64, dtype=torch.float32)
    carried = head.read([x[:, :19] for x in clean.tapped], 0, cache)
    draft = head.draft(base, int(tokens[0, 19]), carried, 4, cache)
    assert len(draft) == 4 and cache.length == 19


def test_a_drafter_that_agrees_saves_every_forward(base: Transformer) -> None:
    tokens = make_sample(30).tokens.unsqueeze(0)
    blocks = full_blocks(tokens, 10, 4, has_anchor=True)
    token_ids = torch.arange(base.config.vocab_size)
    clean = run_clean_pass(base, tokens)
    targets = make_targets(blocks, tokens, base.logits(clean.hidden), invert(token_ids, base.config.vocab_size))
    perfect = torch.nn.functional.one_hot(targets.best.flatten(1), base.config.vocab_size).float() * 50
    value, count = count_accepted(perfect, blocks, targets, 0)["tokens_per_forward"]
    assert float(value / count) == 5.0
    value, count = count_accepted(-perfect, blocks, targets, 0)["tokens_per_forward"]
    assert float(value / count) == 1.0


def test_the_loss_of_the_base_s_own_logits_is_its_entropy(base: Transformer) -> None:
    tokens = make_sample(30).tokens.unsqueeze(0)
    blocks = full_blocks(tokens, 10, 4, has_anchor=True)
    clean = run_clean_pass(base, tokens)
    logits = base.logits(clean.hidden)
    index_of = invert(torch.arange(base.config.vocab_size), base.config.vocab_size)
    targets = make_targets(blocks, tokens, logits, index_of)
    weights = row_weights(blocks, 1.0)
    total, weight = draft_loss(logits[:, 10:14], targets, weights, 1.0)
    wanted = logits[:, 10:14].softmax(-1)
    assert float(weight) == 4.0
    torch.testing.assert_close(total, -(wanted * wanted.log()).sum())
    other, _ = draft_loss(logits[:, 11:15], targets, weights, 1.0)
    assert float(other) > float(total)


def test_a_vocabulary_holds_the_frequent_tokens_and_those_it_must() -> None:
    chosen = choose_vocabulary([torch.tensor([9, 9, 9, 4, 4, 7])], 4, 20, always=[15])
    assert chosen.tolist() == [4, 7, 9, 15]
    assert choose_vocabulary([torch.tensor([9])], 3, 20, always=[]).tolist() == [0, 1, 9]
    assert invert(chosen, 20)[[4, 15, 3]].tolist() == [0, 3, -1]


def test_tuning_learns_answers_and_weighs_what_changed() -> None:
    tokens = torch.arange(10)
    changed = torch.tensor([False, True, False, False])
    edit = Sample(tokens, 6, "edit_commit", changed, tokens[6:9], id="edit")
    document = Sample(tokens[:4], 0, "document", torch.ones(4, dtype=torch.bool), tokens[:0], id="document")
    weights = weigh_targets([edit, document], 10, changed_weight=3.0)
    assert weights[0].tolist() == [0, 0, 0, 0, 0, 1, 3, 1, 1, 0]
    assert weights[1].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
