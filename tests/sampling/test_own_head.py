"""A drafter's own head in the costs of rounds: measured with the slots, and not charged as the output head's."""

from dataclasses import replace

import pytest
import torch
from helpers.tiny_models import tiny_denoiser

from diffusion_core.model.config import DrafterKind
from diffusion_core.sampling.cost_model import CostModel
from diffusion_core.sampling.cost_probe import CostProbe
from diffusion_core.sampling.cost_table import CostTable
from diffusion_core.sampling.round_value import Terms, value_alone, with_slots
from diffusion_core.sampling.rounds import Round

TABLE = CostTable(body=((2, 10.0), (64, 10.0)), head=((2, 5.0), (64, 5.0)), slots=((4, 1.0), (64, 1.0)))


@pytest.mark.parametrize("scores_slots", [False, True])
def test_slots_are_no_rows_of_the_output_head(scores_slots: bool) -> None:
    chosen = Round([7, 8], groups=(0, 2), block_size=4, scores_slots=scores_slots)
    assert chosen.size(1, 0, 2, has_own_head=True).scored == (3,)
    assert chosen.size(1, 0, 2).scored == ((11,) if scores_slots else (3, 4))


def test_slots_cost_no_second_reading() -> None:
    reach = [1.0, 0.5, 0.2]
    ms = {}
    for own in (False, True):
        terms = Terms(CostModel(replace(TABLE, head=((2, 5.0), (64, 40.0)), has_own_head=own)), rate=0.05)
        choice = with_slots(terms, value_alone(terms, reach, 1), reach, 4, worth=9.0)
        assert choice.groups
        assert choice.scores_slots is (False if own else choice.scores_slots)
        ms[own] = choice.ms
    assert ms[True] < ms[False]


def test_the_probe_measures_it_with_the_slots() -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    assert denoiser.adapter is not None
    for own in (False, True):
        if own:
            denoiser.adapter.keep_to(torch.arange(5, 90))
            denoiser.adapter.bind(denoiser.model)
        probe = CostProbe(denoiser)
        for _ in probe.run():
            pass
        assert probe.table is not None
        assert probe.table.has_own_head is own
        assert probe.table.slots
