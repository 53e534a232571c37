"""How long a forward gets, by what rows cost on a machine: whoever may have to wait for it, or rides in it, matters."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest
from helpers.cost_tables import AMX, AVX2, FLAT
from helpers.tiny_models import tiny_denoiser
from helpers.whole_rounds import config_of, random_model, whole_forward

from diffusion_core.callers import OWNER
from diffusion_core.engine.job import Job
from diffusion_core.engine.turns import COMPANION_ROWS, FAR_COMPANY, PATIENCE, Turns, Usage, patient_rows
from diffusion_core.sampling.asking import RowsWanted
from diffusion_core.sampling.cost_model import CostModel
from diffusion_core.sampling.cost_table import CostTable
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import SequenceCache

DENOISER = tiny_denoiser()
NUMBERS = count()


def job_of(user: str, rows: int, table: CostTable | None, *, piece: int = 0, denoiser: Denoiser = DENOISER) -> Job:
    """As far as turns look at a job: whose it is, what it wants and what its model's forwards cost."""
    cache = SequenceCache.create(denoiser, 256).base
    want = RowsWanted(denoiser, cache, [1] * rows, piece=piece)
    rounds = SimpleNamespace(costs=CostModel(table) if table is not None else None)
    caller = SimpleNamespace(user=user, space=OWNER.space)
    made: Any = SimpleNamespace(
        caller=caller, want=want, model=SimpleNamespace(rounds=rounds), is_warm_up=False, priority=0, last_turn=0,
        arrived=next(NUMBERS),
    )  # fmt: skip
    return cast(Job, made)


def rows_by_user(batch: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for job, want in batch:
        found[job.caller.user] = found.get(job.caller.user, 0) + len(want.tokens)
    return found


@pytest.mark.parametrize(("table", "rows"), [(AMX, 32), (AVX2, 16), (FLAT, 64), (None, 32)])
def test_what_may_be_waited_for_takes_at_most_twice_as_long_as_the_shortest(table: CostTable | None, rows: int) -> None:
    job = job_of("ada", 4, table)
    assert patient_rows(job) == rows
    if table is not None and rows < 64:
        body = CostModel(table).body
        assert body[rows // 2] <= PATIENCE * body[2] < body[2 * rows]


def test_one_user_s_many_requests_fill_a_round_that_is_one_kernel() -> None:
    model = random_model(config_of())
    denoiser = replace(DENOISER, model=model, captured=whole_forward(model, None))
    jobs = [job_of("ada", 4, None, denoiser=denoiser) for _ in range(50)]
    assert rows_by_user(Turns(Usage()).choose(jobs)) == {"ada": 64}


@pytest.mark.parametrize(("table", "rows"), [(AMX, 32), (AVX2, 16), (FLAT, 64)])
def test_one_user_s_many_requests_do_not_fill_a_forward(table: CostTable, rows: int) -> None:
    batch = Turns(Usage()).choose([job_of("ada", 4, table) for _ in range(50)])
    assert rows_by_user(batch) == {"ada": rows}


@pytest.mark.parametrize("table", [AMX, AVX2, FLAT])
def test_a_prompt_beside_others_comes_in_pieces_and_alone_at_once(table: CostTable) -> None:
    [(_, want)] = Turns(Usage()).choose([job_of("ada", 200, table, piece=1)])
    assert len(want.tokens) == 200
    two = [job_of(name, 200, table, piece=1) for name in ("ada", "ben")]
    [(_, want)] = Turns(Usage()).choose(two)
    assert len(want.tokens) == patient_rows(two[0])


@pytest.mark.parametrize("table", [AMX, AVX2, FLAT, None])
@pytest.mark.parametrize("other_rows", [4, 200])
def test_a_prompt_in_blocks_longer_than_others_wait_for_comes_block_by_block(
    table: CostTable | None, other_rows: int
) -> None:
    """What leads always rides: an empty forward would never end."""
    jobs = [job_of("ada", 64, table, piece=32), job_of("ben", other_rows, table, piece=1 if other_rows > 96 else 0)]
    found = rows_by_user(Turns(Usage()).choose(jobs))
    assert found["ada"] in (32, 64)


def test_a_long_round_is_the_measure_of_its_company() -> None:
    usage = Usage()
    usage.charge("heavy", 500)
    usage.charge("new", 100)
    found = rows_by_user(Turns(usage).choose([job_of("heavy", 4, AVX2), job_of("new", 48, AVX2)]))
    assert found == {"new": 48, "heavy": 4}, "company of four rows is little beside 48"


@pytest.mark.parametrize("table", [AMX, AVX2, FLAT])
def test_who_has_used_far_less_has_a_forward_hardly_longer_than_alone(table: CostTable) -> None:
    usage = Usage()
    usage.charge("heavy", 500)
    usage.charge("new", 100)
    jobs = [job_of("heavy", 4, table) for _ in range(20)] + [job_of("new", 4, table)]
    found = rows_by_user(Turns(usage).choose(jobs))
    assert found["new"] == 4
    body = CostModel(table).body
    assert body[sum(found.values())] <= FAR_COMPANY * body[4]
    if table is FLAT:
        assert found["heavy"] == COMPANION_ROWS, "where rows are free company is welcome"


@pytest.mark.parametrize("table", [AMX, AVX2, FLAT])
def test_equals_all_ride_together(table: CostTable) -> None:
    usage = Usage()
    for number in range(8):
        usage.charge(f"u{number}", 100 + number)
    batch = Turns(usage).choose([job_of(f"u{number}", 4, table) for number in range(8)])
    assert rows_by_user(batch) == {f"u{number}": 4 for number in range(8)}


def test_a_heavy_user_s_turn_comes_again() -> None:
    """Who is left out uses nothing meanwhile: sooner or later others have used more than half as much."""
    usage = Usage(lambda: 0.0)
    usage.charge("heavy", 500)
    turns = Turns(usage)
    jobs = [job_of("heavy", 12, AVX2), job_of("new", 8, AVX2)]
    waited = next(number for number in range(200) if "heavy" in rows_by_user(turns.choose(jobs)))
    assert 0 < waited < 500 / 8
