"""An engine in this very process, as it is configured for users: measured without a network between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from diffusion_core.config import EngineConfig
from diffusion_core.errors import ConfigError
from diffusion_core.eval.ask import wait_ready

if TYPE_CHECKING:
    from diffusion_core.engine.runner import AsyncEngine


@asynccontextmanager
async def open_own_engine(config: EngineConfig) -> AsyncIterator[AsyncEngine]:
    """Load the model and start the engine; closed at the end.

    Raises:
        CheckpointError: the model is unknown or not downloaded.
        ConfigError: device or dtype are not to be had, or torch is not installed.
        EngineError: the model could not be loaded.
    """
    engine = _make(config)
    engine.start()
    try:
        await wait_ready(engine)
        yield engine
    finally:
        await engine.aclose()


def _make(config: EngineConfig) -> AsyncEngine:
    try:
        from diffusion_core.net.serve import make_engine

        made = make_engine(config)
        from diffusion_core.engine.runner import AsyncEngine
    except ImportError as error:
        raise ConfigError(f"the engine needs the package {error.name}: pip install 'unmask[engine]'") from None
    assert isinstance(made, AsyncEngine)
    return made


def describe_engine(engine: AsyncEngine, device: str) -> dict[str, Any]:
    """Threads of this process, and of each loaded model its size and the bytes of weights that a forward reads."""
    from diffusion_core.eval.bench.bandwidth import bytes_per_forward
    from diffusion_core.eval.bench.machine import describe_torch

    models = {
        model.name: {
            "weight_bytes": model.num_bytes,
            "bytes_per_forward": bytes_per_forward(model.denoiser.model),
            "drafter": model.denoiser.contract.drafter.value,
        }
        for model in engine.loaded_models()
    }
    return {**describe_torch(device), "models": models}
