"""Constrained order: the pool's filter, the states that are learned from, lambda, and a pool that survives a resume."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.tiny_stages import CPU, peaked_denoiser, random_prompts, stage_config

from diffusion_core.diffusion.losses import token_losses
from train.config import OrderConfig
from train.objective import make_generator
from train.objectives import order_distill
from train.objectives.block_rows import BlockRows
from train.objectives.order_distill import OrderDistillation, block_steps, state_weight
from train.objectives.order_pool import (
    TrajectoryPool,
    collect_trajectories,
    make_pool,
    rollout_variants,
    score_trajectories,
)
from train.rollout import RolloutSettings, roll_out

PAD = 256


def build(**order) -> OrderDistillation:
    _, objective, _ = order_distill.build(stage_config("order_distill", **order), CPU)
    assert isinstance(objective, OrderDistillation)
    return objective


def small_pool(num: int = 4) -> tuple[TrajectoryPool, list[torch.Tensor]]:
    denoiser, prompts = peaked_denoiser(), random_prompts(num)
    rollout = roll_out(denoiser, prompts, RolloutSettings(block_size=4, tau=0.5), torch.Generator(), max_tokens=12)
    return collect_trajectories(prompts, rollout, 4, 12, PAD), prompts


def test_variants_differ_in_temperature_order_and_block_size() -> None:
    base = RolloutSettings(block_size=8)
    found = rollout_variants(base, OrderConfig(pool=9, keep=1))
    assert len(found) == 9 and found[0] == base
    assert len({v.temperature for v in found}) == 3 and len({v.order for v in found}) == 3
    assert {v.block_size for v in found} == {2, 4, 8}
    few = rollout_variants(base, OrderConfig(pool=4, keep=1))
    assert len({v.order for v in few}) == 3 and len({v.temperature for v in few}) == 3
    every = rollout_variants(base, OrderConfig(pool=27, keep=1))
    assert len({(v.order, v.block_size, v.temperature) for v in every}) == 27


def test_collected_states_are_those_of_the_rollout() -> None:
    pool, prompts = small_pool()
    mask_id = peaked_denoiser().mask_id
    assert not (pool.final == mask_id).any()
    for row in range(len(prompts)):
        reached = pool.starts[row] < pool.num_answer[row]
        assert (pool.states[row, 0][reached] == mask_id).all(), "the first state is all masks"
        assert torch.equal(pool.states[row, -1], pool.final[row])
        for column in reached.nonzero().flatten().tolist():
            last = int(pool.num_steps[row, column])
            block = pool.starts[row] == pool.starts[row, column]
            assert (pool.states[row, last - 1][block] == mask_id).any(), "a block still has masks before its last step"
            assert torch.equal(pool.states[row, last][block], pool.final[row][block])
    assert (block_steps(pool) >= 1).all()


def test_drawn_states_come_from_before_the_last_step() -> None:
    pool, _ = small_pool()
    mask_id = peaked_denoiser().mask_id
    seen = set()
    for seed in range(20):
        canvas = pool.draw_states(torch.Generator().manual_seed(seed))
        for row in range(len(canvas)):
            for start in {s for s in pool.starts[row].tolist() if s < int(pool.num_answer[row])}:
                block = pool.starts[row] == start
                assert (canvas[row][block] == mask_id).any()
                seen.add((row, start, int((canvas[row][block] == mask_id).sum())))
    assert len(seen) > 8, "different states of the same block are drawn"


def test_likelier_results_score_higher() -> None:
    denoiser = peaked_denoiser()
    pool, _ = small_pool(8)
    score = score_trajectories(denoiser, pool, 8, PAD, (0,))
    # The same trajectories with other results: random tokens where the model chose.
    wrong = torch.randint(0, 200, pool.final.shape, generator=torch.Generator().manual_seed(0))
    states = torch.where(pool.states == denoiser.mask_id, pool.states, wrong.unsqueeze(1))
    spoiled = TrajectoryPool(**(pool.tensors() | {"final": wrong, "states": states}))
    assert (score > score_trajectories(denoiser, spoiled, 8, PAD, (0,))).all()
    assert torch.equal(score, score_trajectories(denoiser, pool, 8, PAD, (0,)))


def test_the_best_of_each_prompt_are_kept() -> None:
    denoiser, prompts = peaked_denoiser(), random_prompts(5)
    config = OrderConfig(pool=4, keep=2, elbo_samples=2, temperatures=(0.0, 1.0))
    arguments = {"pad_id": PAD, "max_tokens": 12, "key": (0,)}
    kept = make_pool(denoiser, prompts, config, **arguments)
    every = make_pool(
        denoiser, prompts, OrderConfig(pool=4, keep=4, elbo_samples=2, temperatures=(0.0, 1.0)), **arguments
    )
    assert len(kept.final) == 10 and len(every.final) == 20
    for prompt in prompts:

        def of(pool: TrajectoryPool, prompt=prompt) -> list[float]:
            rows = [
                i
                for i in range(len(pool.final))
                if pool.prompts[i, : int(pool.num_prompt[i])].tolist() == prompt.tolist()
            ]
            return sorted(pool.score[rows].tolist(), reverse=True)

        assert of(kept) == of(every)[:2]


def test_lambda_is_one_over_the_masked_share_of_the_block() -> None:
    is_masked = torch.tensor([[True, True, False, False, True, False]])
    block_of = torch.tensor([[0, 0, 0, 0, 1, 1]])
    assert state_weight(is_masked, block_of)[0].tolist() == [2, 2, 2, 2, 2, 2]
    none = state_weight(torch.zeros(1, 6, dtype=torch.bool), block_of)
    assert none[0].tolist() == [1] * 6


def test_loss_is_eq_9() -> None:
    config = stage_config("order_distill")
    objective = build(order=replace(config.order, edit_rate=0.0))
    model = objective.plain.start.model
    output = objective.loss(model, objective.draw(0, 0, 1), 0)
    pool = objective.pool
    assert pool is not None
    generator = make_generator(config.seed, "order", 0, 0)
    chosen = pool.select(torch.randint(len(pool.final), (6,), generator=generator))
    x_i = chosen.draw_states(generator)
    rows = BlockRows(chosen.batch(objective.plain.pad_id), chosen.partition(), (x_i,))
    _, (logits,) = rows.evaluate(model, objective.plain.start.contract.alignment)
    losses = token_losses(logits, chosen.final, objective.plain.start.mask_id).detach()
    wanted = 0.0
    for row in range(6):
        for start in set(chosen.starts[row].tolist()):
            block = chosen.starts[row] == start
            if start < int(chosen.num_answer[row]):
                masked = x_i[row][block] == objective.plain.start.mask_id
                weight = 1 / float(masked.float().mean())
                wanted += float((losses[row][block] * torch.where(masked, weight, 1.0)).sum())
    assert float(output.loss_sum.detach()) == pytest.approx(wanted, rel=1e-4)
    output.loss_sum.backward()


def test_noise_spares_the_masks_and_has_its_rate() -> None:
    objective = build(order=replace(stage_config("order_distill").order, edit_rate=0.3))
    mask_id = objective.plain.start.mask_id
    x_i = torch.randint(40, 120, (50, 40), generator=torch.Generator().manual_seed(0))
    x_i[:, ::3] = mask_id
    pool, _ = small_pool()
    noisy = objective.add_noise(pool, x_i, torch.Generator().manual_seed(0))
    assert torch.equal(noisy == mask_id, x_i == mask_id)
    share = (noisy != x_i)[x_i != mask_id].float().mean()
    assert 0.2 < float(share) < 0.31


def test_the_pool_survives_a_resume() -> None:
    first = build()
    model = first.plain.start.model
    first.loss(model, first.draw(0, 0, 1), 0)
    second = build()
    second.load_state(first.state())
    old = {name: tensor for name, tensor in first.state().tensors.items() if name != "is_finished"}
    older = build()
    older.load_state(replace(first.state(), tensors=old))
    assert older.pool is None, "a version before did not say which trajectories ended"
    third = build()
    third.load_state(third.state())  # before the first step there is no pool
    assert third.pool is None
    a, b = (o.loss(model, o.draw(1, 0, 1), 1) for o in (first, second))
    assert float(a.loss_sum.detach()) == float(b.loss_sum.detach())
    assert second.pool is not None and first.pool is not None
    assert torch.equal(second.pool.final, first.pool.final)


def test_a_pool_that_was_read_goes_to_the_models_device() -> None:
    first, second = build(), build()
    first.refresh(first.plain.start.model, first.draw(0, 0, 1), 0)
    second.load_state(first.state())
    model = second.plain.start.model.to("meta")
    pool = second.refresh(model, second.draw(1, 0, 1), 1)
    assert {tensor.device.type for tensor in pool.tensors().values()} == {"meta"}


def test_the_pool_is_made_anew_when_it_is_due() -> None:
    objective = build(order=replace(stage_config("order_distill").order, refresh_every=2))
    model = objective.plain.start.model
    pools = []
    for step in range(4):
        objective.loss(model, objective.draw(step, 0, 1), step)
        pools.append(objective.pool)
    assert pools[0] is pools[1] and pools[2] is pools[3] and pools[1] is not pools[2]
    assert pools[0] is not None and pools[2] is not None
    assert not torch.equal(pools[0].prompts, pools[2].prompts), "from other prompts"
