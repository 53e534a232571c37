"""What is not as it should be, from the description's own schemas and from bytes: a short run of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.fuzz import LIMITS, ROOMY, fuzz, look_after
from helpers.described_api import try_everything
from helpers.tiny_server import ServeProcess, serve_tiny


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with serve_tiny(tmp_path_factory.mktemp("malformed"), **LIMITS) as running:
        yield running


def test_answers_are_as_the_description_says(tmp_path: Path) -> None:
    with serve_tiny(tmp_path, **ROOMY) as server:
        seen = try_everything(server, num_examples=6)
    assert seen["POST /infill 200"] and seen["POST /infill 400"]


async def test_broken_requests_break_nothing(server: ServeProcess) -> None:
    outcome = await fuzz(server, 1000, seed=5)
    look_after(server, outcome)
    assert not outcome.failures
    assert outcome.growth_mib < 64
    assert {name.split()[1] for name in outcome.statuses} >= {"0", "200", "400", "401"}
