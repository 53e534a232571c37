"""The rows of a training forward see what serving shows them: a training forward = a serving forward."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_stages import peaked_start, random_prompts
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.diffusion.losses import ban_mask_token
from diffusion_core.errors import ConfigError
from diffusion_core.model.config import LogitAlignment
from diffusion_core.model.masks import causal
from diffusion_core.sampling.evaluate import Denoiser
from train.objectives.block_rows import BlockRows, draw_partition, pad_answers
from train.objectives.order_pool import partition_from_starts
from train.rollout import block_logits

ALIGNMENTS = [LogitAlignment.SAME_POSITION, LogitAlignment.SHIFTED]
PAD = 256


def make_rows(start, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    prompts, answers = random_prompts(4, seed), random_prompts(4, seed + 1, least=5, most=13)
    batch = pad_answers(prompts, answers, PAD, num_columns=20)
    partition = draw_partition(4, 20, 3, 6, generator)
    noisy = torch.where(torch.rand(4, 20, generator=generator) < 0.5, start.mask_id, batch.answers)
    other = torch.where(torch.rand(4, 20, generator=generator) < 0.5, 65, batch.answers)
    return BlockRows(batch, partition, (noisy, other)), prompts, answers


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_training_forward_equals_serving_forward(alignment: LogitAlignment) -> None:
    start = peaked_start(alignment=alignment)
    rows, prompts, answers = make_rows(start)
    denoiser = Denoiser(start.model, start.contract)
    with torch.no_grad():
        _, logits = rows.evaluate(start.model, alignment)
    compared = 0
    for sample in range(4):
        for first in sorted(set(rows.partition.start_of[sample].tolist())):
            if first >= len(answers[sample]):
                assert not rows.is_counted[sample, first]
                continue
            columns = rows.partition.start_of[sample] == first
            context = torch.cat((prompts[sample], answers[sample][:first]))
            for group, found in zip(rows.groups, logits, strict=True):
                with torch.no_grad():
                    wanted = block_logits(denoiser, [context], group[sample][columns].unsqueeze(0))[0]
                got = ban_mask_token(found[sample][columns], start.mask_id)
                assert torch.allclose(got.softmax(-1), wanted.softmax(-1), atol=1e-5)
                compared += 1
    assert compared >= 12


@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_an_answer_that_breaks_off_is_followed_by_nothing(alignment: LogitAlignment, seed: int) -> None:
    """Its last block is what serving would show for a block that ends with it; a finished one has its padding."""
    start = peaked_start(alignment=alignment)
    whole, prompts, answers = make_rows(start, seed)
    is_finished = [True, False, False, True]
    batch = pad_answers(prompts, answers, PAD, num_columns=20, is_finished=is_finished)
    rows = BlockRows(batch, whole.partition, whole.groups)
    with torch.no_grad():
        _, logits = rows.evaluate(start.model, alignment)
    assert all(torch.isfinite(found).all() for found in logits)
    denoiser, columns, shorter = Denoiser(start.model, start.contract), torch.arange(20), 0
    for sample, answer in enumerate(answers):
        begin = int(rows.partition.start_of[sample, len(answer) - 1])
        block = rows.partition.start_of[sample] == begin
        known = block if is_finished[sample] else block & (columns < len(answer))
        shorter += int(known.sum() < block.sum())
        assert torch.equal(rows.is_counted[sample], (columns < begin) | known)
        context = torch.cat((prompts[sample], answer[:begin]))
        for group, found in zip(rows.groups, logits, strict=True):
            with torch.no_grad():
                wanted = block_logits(denoiser, [context], group[sample][known].unsqueeze(0))[0]
            got = ban_mask_token(found[sample][known], start.mask_id)
            assert torch.allclose(got.softmax(-1), wanted.softmax(-1), atol=1e-5)
    assert shorter > 0, "a last block that the answer does not fill"


def test_clean_rows_are_causal_and_see_no_slot() -> None:
    start = peaked_start(alignment=LogitAlignment.SHIFTED)
    rows, prompts, answers = make_rows(start)
    with torch.no_grad():
        hidden, _ = rows.evaluate(start.model, LogitAlignment.SHIFTED)
        logits = rows.clean_logits(start.model, hidden)
        for sample, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            tokens = torch.cat((prompt, answer)).unsqueeze(0)
            alone = start.model(tokens, torch.arange(tokens.shape[1]).unsqueeze(0), causal(tokens.shape[1]))
            wanted = start.model.logits(alone[0, len(prompt) - 1 : -1])
            assert torch.allclose(logits[sample, : len(answer)], wanted, atol=2e-4)


@given(seed=st.integers(0, 10**6), num_columns=st.integers(1, 40), least=st.integers(1, 9), extra=st.integers(0, 9))
@settings(max_examples=60)
def test_partition(seed: int, num_columns: int, least: int, extra: int) -> None:
    partition = draw_partition(3, num_columns, least, least + extra, torch.Generator().manual_seed(seed))
    assert (partition.sizes.sum(-1) == num_columns).all()
    assert (partition.sizes <= least + extra).all()
    columns = torch.arange(num_columns).expand(3, -1)
    inside = columns - partition.start_of
    assert (inside >= 0).all() and (inside < partition.sizes.gather(1, partition.block_of)).all()
    values = torch.randint(0, 100, (3, num_columns))
    blocks, is_real = partition.to_blocks(values)
    assert int(is_real.sum()) == 3 * num_columns
    assert torch.equal(partition.to_columns(blocks), values)
    assert torch.equal(partition_from_starts(partition.start_of).start_of, partition.start_of)


def test_bad_batches_are_refused() -> None:
    with pytest.raises(ConfigError, match="without samples"):
        pad_answers([], [], PAD, num_columns=4)
    with pytest.raises(ConfigError, match="without a prompt"):
        pad_answers([torch.empty(0, dtype=torch.long)], [torch.tensor([1])], PAD, num_columns=4)
    with pytest.raises(ConfigError, match="5 tokens, more than the 4 columns"):
        pad_answers([torch.tensor([1])], [torch.arange(5)], PAD, num_columns=4)
