"""The models of one engine: one for completions, one for edits, each loaded in the background when first needed."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import torch

from diffusion_core.checkpoints.registry import registry
from diffusion_core.checkpoints.store import is_downloaded
from diffusion_core.config import DEFAULT_EDIT_MODEL, DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.device import Precision, return_freed_memory
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.engine.memory import GB, available_bytes
from diffusion_core.engine.model_builder import ModelBuilder
from diffusion_core.errors import CheckpointError, InvalidRequest
from diffusion_core.kernels.library import advice
from diffusion_core.requests import ModelStatus

logger = logging.getLogger(__name__)


def _has_failed(future: Future[LoadedModel]) -> bool:
    return future.done() and future.exception() is not None


def _await_end(name: str, model: weakref.ref[LoadedModel], closing: threading.Event) -> None:
    """Give memory back when the last request of a replaced model has ended; what is part of a cycle is collected."""
    for wait_s in (0.0, 2.0, 10.0, 60.0, 300.0):
        if closing.wait(wait_s):
            return
        if wait_s and model() is not None:
            gc.collect()  # stops everything for a tenth of a second, so only if need be
        if model() is None:
            return_freed_memory()
            logger.info("the model that was %s before is freed", name)
            return
    logger.warning("the model that was %s before is still in use", name)


class ModelHost:
    """Loads models by name, each once and in a thread of its own; ``on_change`` is called after every state change."""

    def __init__(self, config: EngineConfig, device: torch.device, on_change: Callable[[], None]) -> None:
        self._config, self._device, self._on_change = config, device, on_change
        self._builder = ModelBuilder(config, device, self._edit_model)
        self._lock = threading.Lock()
        self._loading: dict[str, Future[LoadedModel]] = {}
        self._reloading: dict[str, Future[LoadedModel]] = {}
        self._closing = threading.Event()
        self._notices: dict[str, str] = {}

    def model_for(self, task: str, wanted: str = "") -> str:
        """Name of the model that serves ``task`` ("complete" or "edit"), or the one a request asks for.

        Raises:
            InvalidRequest: the engine does not serve the model asked for.
        """
        if wanted:
            served = {self._config.model, self._edit_model()}
            if wanted not in served:
                raise InvalidRequest(
                    f"model {wanted!r} is not served here: this engine has {', '.join(sorted(served))}"
                )
            return wanted
        return self._config.model if task == "complete" else self._edit_model()

    def _edit_model(self) -> str:
        """The edit model; with ``auto`` the recommended one where it is at hand and fits."""
        config = self._config
        if config.edit_model != "auto":
            return config.edit_model
        if config.model != DEFAULT_MODEL:
            return config.model
        if DEFAULT_EDIT_MODEL in self._loading and "edit" not in self._notices:
            return DEFAULT_EDIT_MODEL
        if not is_downloaded(DEFAULT_EDIT_MODEL):
            self._notices["edit"] = (
                f"edits are answered by the small {config.model}; for better ones run: unmask pull {DEFAULT_EDIT_MODEL}"
            )
            return config.model
        shape = registry()[DEFAULT_EDIT_MODEL].shape
        assert shape is not None
        needed = self._builder.demand(DEFAULT_EDIT_MODEL, shape).footprint.total
        free = available_bytes(config, self._device)
        if free < needed:
            self._notices["edit"] = (
                f"edits are answered by the small {config.model}: {DEFAULT_EDIT_MODEL} needs "
                f"{needed / GB:.1f} GB and {max(free, 0) / GB:.1f} GB are free"
            )
            return config.model
        self._notices.pop("edit", None)
        return DEFAULT_EDIT_MODEL

    @property
    def notices(self) -> tuple[str, ...]:
        """Remarks for the user."""
        return (*self._notices.values(), *filter(None, (advice(),)))

    def notice_for(self, task: str) -> str:
        """The remark that concerns ``task``; empty when there is none."""
        return self._notices.get(task, "")

    def precision_of(self, name: str) -> Precision:
        """The dtype of a loaded model's activations and the form of its weights; before, what is known of them."""
        return self._builder.precision_of(name)

    def load(self, name: str) -> Future[LoadedModel]:
        """The model, being loaded if it is not yet. A failure is reported once and tried again at the next call."""
        with self._lock:
            found = self._loading.get(name)
            if found is not None and not (found.done() and found.exception() is not None):
                return found
            future: Future[LoadedModel] = Future()
            self._loading[name] = future
        threading.Thread(target=self._load, args=(name, future), name=f"load {name}", daemon=True).start()
        return future

    def close(self) -> None:
        """Stop watching models that have been replaced."""
        self._closing.set()

    def reload(self, name: str) -> Future[LoadedModel]:
        """A model that is served, loaded again beside itself; from when the future resolves on it answers what comes.

        Requests that have it already end on the old one, which is freed with the last of them. One that cannot be
        loaded or fails its self-test changes nothing but :attr:`notices`.
        """
        with self._lock:
            found = self._loading.get(name)
            if found is None or not found.done() or found.exception() is not None:
                successor = found
            else:
                successor = self._reloading.get(name)
                if successor is None:
                    successor = self._reloading[name] = Future()
                    old = weakref.ref(found.result())
                    threading.Thread(
                        target=self._replace, args=(name, old, successor), name=f"reload {name}", daemon=True
                    ).start()
        return successor if successor is not None and not _has_failed(successor) else self.load(name)

    def _replace(self, name: str, old: weakref.ref[LoadedModel], successor: Future[LoadedModel]) -> None:
        try:
            model = self._builder.build_tested(name)
        except BaseException as error:  # whatever it is, somebody waits for the future
            with self._lock:
                del self._reloading[name]
                self._notices[f"reload {name}"] = f"a new checkpoint is refused, the old one answers: {error}"
            successor.set_exception(error)
        else:
            ready: Future[LoadedModel] = Future()
            ready.set_result(model)
            with self._lock:
                del self._reloading[name]
                self._loading[name] = ready
                self._notices.pop(f"reload {name}", None)
            logger.info("model %s was replaced", name)
            successor.set_result(model)
            self._on_change()
            del model, ready, successor
            _await_end(name, old, self._closing)
        finally:
            self._on_change()

    def _load(self, name: str, future: Future[LoadedModel]) -> None:
        try:
            model = self._builder.build(name)
            return_freed_memory()
            future.set_result(model)
            logger.info("model %s is loaded", name)
        except BaseException as error:  # as above
            future.set_exception(error)
        finally:
            self._on_change()

    def loaded(self) -> list[LoadedModel]:
        """All models that are ready."""
        with self._lock:
            futures = list(self._loading.values())
        return [f.result() for f in futures if f.done() and f.exception() is None]

    def statuses(self) -> tuple[ModelStatus, ...]:
        """State of the model of each task."""
        return tuple(self._status(task, self.model_for(task)) for task in ("complete", "edit"))

    def _status(self, task: str, name: str) -> ModelStatus:
        future = self._loading.get(name)
        if future is None:
            is_known = name in registry()
            state = "not_loaded" if not is_known or is_downloaded(name) else "not_downloaded"
            return ModelStatus(name=name, task=task, state=state)
        if not future.done():
            return ModelStatus(name=name, task=task, state="loading")
        error = future.exception()
        if error is not None:
            state = "not_downloaded" if isinstance(error, CheckpointError) and "pull" in str(error) else "failed"
            return ModelStatus(name=name, task=task, state=state, detail=str(error))
        model = future.result()
        return ModelStatus(
            name=name, task=task, state="ready", memory_bytes=model.num_bytes, context_tokens=model.encoder.max_tokens
        )
