"""What `unmask status` tells of the rounds of an engine's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusion_core.decoding_report import DecodingReport, DraftReport, ForwardCost
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.sampling.cost_model import CostModel

_ROWS = (1, 2, 4, 8, 16, 32, 64)


def report_decoding(models: Sequence[LoadedModel], num_threads: int) -> tuple[DecodingReport, ...]:
    """A report for each model; called while the engine's thread goes on."""
    return tuple(_report(model, num_threads) for model in models)


def _report(model: LoadedModel, num_threads: int) -> DecodingReport:
    rounds, statistics = model.rounds, model.rounds.statistics
    costs, plan = rounds.costs, rounds.plan
    shape, size = "", 0
    if rounds.head_block:
        shape, size = "draft_head", rounds.head_block
    elif plan is not None:
        shape, size = (plan.shape.value, plan.block_size) if plan.shape is not None else ("none", 0)
    return DecodingReport(
        model=model.name,
        num_threads=num_threads,
        native=model.denoiser.model.native is not None,
        costs=_report_costs(costs) if costs is not None else _report_sizes(rounds.size_ms),
        pace=round(costs.pace, 3) if costs is not None else 1.0,
        block_size=size,
        round_shape=shape,
        num_rounds=statistics.num_rounds,
        num_tokens=statistics.num_tokens,
        drafts=tuple(
            DraftReport(
                source=source, num_drafts=t.num_drafts, num_drafted=t.num_drafted, num_accepted=t.num_accepted,
                acceptance=tuple(round(rate, 3) for rate in t.rates),
            )
            for source, t in sorted(statistics.totals.items())
        ),
    )  # fmt: skip


def _report_sizes(size_ms: Mapping[int, float]) -> tuple[ForwardCost, ...]:
    """Captured rounds, the head and all."""
    return tuple(ForwardCost(rows=n, body_ms=round(ms, 3), head_ms=0.0, slots_ms=0.0) for n, ms in size_ms.items())


def _report_costs(costs: CostModel) -> tuple[ForwardCost, ...]:
    return tuple(
        ForwardCost(
            rows=n, body_ms=round(costs.body[n], 3), head_ms=round(costs.head[n], 3), slots_ms=round(costs.slots[n], 3)
        )
        for n in _ROWS
    )
