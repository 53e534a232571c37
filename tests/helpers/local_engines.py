"""Local engines around the scripted engine, as the launcher's tests use them."""

from __future__ import annotations

import sys

from diffusion_core.config import ClientConfig, EngineConfig
from diffusion_core.net.launcher import LocalEngine
from diffusion_core.net.state_files import EngineState
from diffusion_core.requests import CompletionRequest

COMMAND = (sys.executable, "-P", "-m", "helpers.scripted_engine")
CONFIG = ClientConfig(engine=EngineConfig(model="scripted"), engine_start_timeout_s=30, engine_idle_exit_s=60)
QUICK = CompletionRequest(prefix="abc", max_tokens=1)
ENDLESS = CompletionRequest(prefix="abc", max_tokens=8000)


class Local:
    """Makes local engines that report into one list, and stops their processes at the end."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []
        self.engines: list[LocalEngine] = []

    def make(self, config: ClientConfig = CONFIG) -> LocalEngine:
        engine = LocalEngine(config, on_state=lambda *state: self.states.append(state), command=COMMAND)
        self.engines.append(engine)
        return engine

    @property
    def state_names(self) -> list[str]:
        return [name for name, _ in self.states]


def read_state(engine: LocalEngine) -> EngineState:
    state = engine.files.read_state()
    assert state is not None
    return state
