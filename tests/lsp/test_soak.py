"""A short soak; the long one is ``python -m bench.soak``."""

import asyncio

import pytest
from bench.soak import MIN_STOPS, run


@pytest.mark.slow
async def test_typing_and_cancelling_for_a_while():
    report = await asyncio.to_thread(run, 20, "scripted")
    assert report.failures == []
    assert report.num_keys > 80 and report.num_typed_through > 30 and report.num_requests > report.num_keys


@pytest.mark.slow
async def test_the_real_engine_rests_after_every_cancel():
    report = await asyncio.to_thread(run, 12, "tiny")
    assert report.failures == []
    assert report.num_stops >= MIN_STOPS and report.num_cancelled >= report.num_stops
