"""`unmask serve` killed under load and started again: the short version of ``bench.recovery``."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.recovery import measure


@pytest.mark.slow
async def test_a_server_that_is_killed_comes_back_with_the_right_answers(tmp_path: Path) -> None:
    result = await measure(tmp_path, supervisor="service", kills=2, num_clients=3)
    assert len(result.recoveries_s) == 2
    assert result.num_answers > 6
    # How soon depends on what else this machine does: the bench measures it.
    assert result.failures(limit_s=30) == []
