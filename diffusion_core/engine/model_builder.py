"""From a model's name to the model: its files, its drafter and tuning, its precision, and whether it fits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from diffusion_core.checkpoints.families.recognise import AUTO
from diffusion_core.checkpoints.layout import ShapeCheck, is_own_layout
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.checkpoints.packaged import find_packaged_drafter, find_packaged_tuning
from diffusion_core.checkpoints.registry import registry
from diffusion_core.checkpoints.store import locate, stored_bytes
from diffusion_core.config import EngineConfig
from diffusion_core.engine.device import Precision, choose_precision
from diffusion_core.engine.loaded_model import LoadedModel, assemble
from diffusion_core.engine.memory import Demand, check_fits
from diffusion_core.engine.self_test import check_model
from diffusion_core.errors import EngineError, OutOfMemory, UnmaskError
from diffusion_core.model.config import AttentionPattern, DiffusionConfig, ModelConfig
from diffusion_core.model.transformer import Transformer

logger = logging.getLogger(__name__)


class ModelBuilder:
    """Builds models as ``config`` says; ``edit_model`` names the one that answers edits, to which a tuning belongs."""

    def __init__(self, config: EngineConfig, device: torch.device, edit_model: Callable[[], str]) -> None:
        self._config, self._device, self._edit_model = config, device, edit_model
        self._precisions: dict[str, Precision] = {}

    def build(self, name: str) -> LoadedModel:
        """Load the model ``name`` with the drafter and tuning that belong to it.

        Raises:
            CheckpointError: its files are missing or wrong.
            OutOfMemory: it does not fit.
            EngineError: anything else, which is logged.
        """
        return self._translate(name, lambda: self._build(name))

    def build_tested(self, name: str) -> LoadedModel:
        """As :meth:`build`, of a model that answers its self-test (self_test.py), whose failures are told alike."""

        def build() -> LoadedModel:
            model = self._build(name)
            check_model(model)
            return model

        return self._translate(name, build)

    def _translate(self, name: str, build: Callable[[], LoadedModel]) -> LoadedModel:
        try:
            return build()
        except UnmaskError:
            raise
        except (MemoryError, torch.OutOfMemoryError):
            raise OutOfMemory(f"model {name} does not fit the memory: choose a smaller one") from None
        except Exception as error:
            logger.exception("loading %s failed", name)
            raise EngineError(f"model {name} could not be loaded: {type(error).__name__}: {error}") from None

    def _find_drafter(self, name: str) -> Path | None:
        wanted = self._config.drafter
        if wanted == "auto":
            return find_packaged_drafter(name)
        return Path(wanted) if wanted != "none" and name == self._config.model else None

    def _find_tuning(self, name: str) -> Path | None:
        wanted = self._config.tuning
        if wanted == "auto":
            return find_packaged_tuning(name)
        return Path(wanted) if wanted != "none" and name == self._edit_model() else None

    def precision_of(self, name: str) -> Precision:
        """The dtype of a loaded model's activations and the form of its weights; before, what is known of them."""
        return self._precisions.get(name) or choose_precision(self._config, self._device)

    def _choose_precision(self, name: str) -> Precision:
        return choose_precision(self._config, self._device, stored_bytes(name))

    def demand(
        self, name: str, shape: ModelConfig, attention: AttentionPattern = AttentionPattern.CAUSAL_CONTEXT
    ) -> Demand:
        """What a model of that shape takes of the memory here."""
        precision = self._choose_precision(name)
        return Demand(shape=shape, config=self._config, device=self._device, precision=precision, attention=attention)

    def _checker(self, name: str) -> ShapeCheck:
        """Looks once whether the model fits; the first load of a foreign format asks again after its conversion."""
        is_checked = False

        def check(shape: ModelConfig, contract: DiffusionConfig) -> None:
            nonlocal is_checked
            if not is_checked:
                check_fits(name, self.demand(name, shape, contract.attention))
            is_checked = True

        return check

    def _build(self, name: str) -> LoadedModel:
        precision = self._precisions[name] = self._choose_precision(name)
        checkpoint = load_checkpoint(
            name,
            dtype=precision.dtype,
            device=self._device,
            drafter=self._find_drafter(name),
            tuning=self._find_tuning(name),
            family=self._config.family if name == self._config.model else AUTO,
            serve=True,
            quantize=precision.weights,
            check=self._checker(name),
        )
        if is_own_layout(locate(name)) and name not in registry():
            # Such a folder is somebody's: a file of it that is written over would change, or end, what is mapped.
            _copy_mapped(checkpoint.model)
        return assemble(checkpoint, self._config)


def _copy_mapped(model: Transformer) -> None:
    """Give every tensor memory of its own."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.layout is torch.strided:
            tensor.data = tensor.data.clone()
