"""The models of one engine: one for completions, one for edits, each loaded in the background when first needed."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer

from diffusion_core.checkpoints.adapter import Drafter, DraftHeadMetadata, GatedAdapterMetadata
from diffusion_core.checkpoints.families.recognise import AUTO
from diffusion_core.checkpoints.layout import ShapeCheck, is_own_layout
from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint
from diffusion_core.checkpoints.packaged import find_packaged_drafter, find_packaged_tuning
from diffusion_core.checkpoints.registry import registry
from diffusion_core.checkpoints.store import is_downloaded, locate, stored_bytes
from diffusion_core.config import DEFAULT_EDIT_MODEL, DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.device import Precision, choose_precision, return_freed_memory
from diffusion_core.engine.memory import GB, Demand, available_bytes, check_fits
from diffusion_core.engine.prefix_cache import DRAFT_ROOM, PrefixCache
from diffusion_core.engine.prompt_tokens import PromptEncoder
from diffusion_core.engine.self_test import check_model
from diffusion_core.errors import CheckpointError, EngineError, InvalidRequest, OutOfMemory, UnmaskError
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.captured import CapturedForward, choose_ops
from diffusion_core.model.config import AttentionPattern, DiffusionConfig, ModelConfig
from diffusion_core.model.draft_head import DraftHead
from diffusion_core.model.packed import can_pack
from diffusion_core.model.transformer import Transformer
from diffusion_core.requests import ModelStatus
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.evaluate import Denoiser

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to decode."""

    name: str
    denoiser: Denoiser
    tokenizer: Tokenizer
    encoder: PromptEncoder
    prefix_cache: PrefixCache
    stop_token_ids: frozenset[int]
    banned_token_ids: tuple[int, ...]
    rounds: RoundModel = field(default_factory=RoundModel)

    @property
    def num_bytes(self) -> int:
        """Size of the weights and of what captured rounds hold, in bytes."""
        captured = self.denoiser.captured
        return self.denoiser.model.num_bytes + (captured.num_bytes if captured is not None else 0)


def build_drafter(model: Transformer, drafter: Drafter | None) -> tuple[GatedAdapter | None, DraftHead | None]:
    """The module of a drafter's tensors, in the model's dtype and on its device."""
    if drafter is None:
        return None, None
    metadata = drafter.metadata
    if isinstance(metadata, GatedAdapterMetadata):
        adapter = GatedAdapter(
            model.config, rank=metadata.rank, alpha=metadata.alpha, mask_token_id=metadata.mask_token_id
        )
        adapter.load_tensors(drafter.tensors)
        adapter = adapter.to(model.device, model.dtype).eval().requires_grad_(False)
        adapter.bind(model, serve=can_pack(model.device, model.dtype))
        return adapter, None
    assert isinstance(metadata, DraftHeadMetadata)
    head = DraftHead(
        model.config,
        num_layers=metadata.num_layers,
        tap_layers=metadata.tap_layers,
        vocabulary_size=metadata.vocabulary_size,
        num_steps=metadata.num_steps,
    )
    head.load_tensors(drafter.tensors)
    head = head.to(model.device, model.dtype).eval().requires_grad_(False)
    head.bind(model, serve=can_pack(model.device, model.dtype))
    return None, head


def build_captured(
    model: Transformer,
    adapter: GatedAdapter | None,
    head: DraftHead | None,
    *,
    capture: str,
    max_positions: int,
) -> CapturedForward | None:
    """What evaluates decoding rounds in static shapes, as ``engine.capture`` says; None: the ordinary forward does."""
    if capture == "auto":
        capture = "exact" if model.device.type == "cuda" else "off"
    if capture == "off":
        return None
    taps = head.tap_layers if head is not None else ()
    return CapturedForward(
        model, adapter, max_positions=max_positions, taps=taps, exact=capture == "exact", ops=choose_ops(model, adapter)
    )


def assemble(checkpoint: Checkpoint, config: EngineConfig) -> LoadedModel:
    """Join a checkpoint's parts into what the engine decodes with."""
    model, contract = checkpoint.model, checkpoint.diffusion_config
    adapter, head = build_drafter(model, checkpoint.adapter)
    context = min(config.max_context_tokens, model.config.max_position_embeddings)
    captured = build_captured(model, adapter, head, capture=config.capture, max_positions=context + DRAFT_ROOM)
    if captured is not None:
        captured.prepare()
    denoiser = Denoiser(model, contract, adapter, head, captured)
    # Rows of the vocabulary that no token stands for are padding.
    padding = range(checkpoint.tokenizer.get_vocab_size(with_added_tokens=True), model.config.vocab_size)
    return LoadedModel(
        name=checkpoint.name,
        denoiser=denoiser,
        tokenizer=checkpoint.tokenizer,
        encoder=PromptEncoder(checkpoint.tokenizer, contract, context),
        prefix_cache=PrefixCache(denoiser, config.prefix_cache_bytes),
        stop_token_ids=frozenset(contract.stop_token_ids),
        banned_token_ids=(*contract.banned_token_ids, *padding),
    )


def _copy_mapped(model: Transformer) -> None:
    """Give every tensor memory of its own."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.layout is torch.strided:
            tensor.data = tensor.data.clone()


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
        self._lock = threading.Lock()
        self._loading: dict[str, Future[LoadedModel]] = {}
        self._reloading: dict[str, Future[LoadedModel]] = {}
        self._closing = threading.Event()
        self._notices: dict[str, str] = {}
        self._precisions: dict[str, Precision] = {}

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
        needed = self._demand(DEFAULT_EDIT_MODEL, shape).footprint.total
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
        return tuple(self._notices.values())

    def notice_for(self, task: str) -> str:
        """The remark that concerns ``task``; empty when there is none."""
        return self._notices.get(task, "")

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

    def _demand(
        self, name: str, shape: ModelConfig, attention: AttentionPattern = AttentionPattern.CAUSAL_CONTEXT
    ) -> Demand:
        precision = self._choose_precision(name)
        return Demand(shape=shape, config=self._config, device=self._device, precision=precision, attention=attention)

    def _checker(self, name: str) -> ShapeCheck:
        """Looks once whether the model fits; the first load of a foreign format asks again after its conversion."""
        is_checked = False

        def check(shape: ModelConfig, contract: DiffusionConfig) -> None:
            nonlocal is_checked
            if not is_checked:
                check_fits(name, self._demand(name, shape, contract.attention))
            is_checked = True

        return check

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
            model = self._build_translated(name)
            check_model(model)
        except UnmaskError as error:
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

    def _build_translated(self, name: str) -> LoadedModel:
        """As :meth:`_build`, with every failure as one of ours."""
        try:
            return self._build(name)
        except UnmaskError:
            raise
        except (MemoryError, torch.OutOfMemoryError):
            raise OutOfMemory(f"model {name} does not fit the memory: choose a smaller one") from None
        except Exception as error:
            logger.exception("loading %s failed", name)
            raise EngineError(f"model {name} could not be loaded: {type(error).__name__}: {error}") from None

    def _load(self, name: str, future: Future[LoadedModel]) -> None:
        try:
            model = self._build_translated(name)
            return_freed_memory()
            future.set_result(model)
            logger.info("model %s is loaded", name)
        except UnmaskError as error:
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
