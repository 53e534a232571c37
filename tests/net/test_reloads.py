"""What a running server reads anew when it is told to."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest
from helpers.scripted_engine import ScriptedEngine

from diffusion_core.config import ServerConfig
from diffusion_core.errors import Unreachable
from diffusion_core.net.model_reloads import ModelReloads, ReloadOutcome
from diffusion_core.net.reloads import Reloads


class AwayAtFirst(ModelReloads):
    """Models of an engine that does not answer the first time."""

    num_asked = 0

    async def reload_all(self) -> tuple[ReloadOutcome, ...]:
        self.num_asked += 1
        if self.num_asked == 1:
            raise Unreachable("no replica of the engine answers")
        return ()


async def test_a_reload_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    models = AwayAtFirst(ScriptedEngine())
    watching = asyncio.create_task(Reloads(ServerConfig(), None, models, follows_hangup=True).run())
    await asyncio.sleep(0.05)
    for number in (1, 2):
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(500):
            if models.num_asked == number:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert models.num_asked == number
        assert not watching.done()
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ["models were not reloaded: no replica of the engine answers"]
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
