"""Unmask's own engine as a peer, and Fast-dLLM's decoding run through it.

Fast-dLLM (arXiv 2505.22618) speeds up diffusion models by two things, without training:

- *confidence-aware parallel decoding*: in every step all masked positions of the block whose best token has at least
  probability 0.9 are committed, and at least the best one. This is our policy `confidence` with ``tau`` 0.9;
  Fast-dLLM never reopens a position, hence ``tau_low`` 0.
- *block-wise cache*: keys and values of everything before the block are kept while its steps run. Ours are kept as
  well; they are exact, because the packaged drafter (a gated adapter) leaves clean rows causal, where Fast-dLLM's are
  an approximation for bidirectional models. Its second cache, of what follows the block, has nothing to hold: the
  suffix stands in the prompt.

The block's size is the one that the drafter was trained for; Fast-dLLM's default of 32 belongs to models that were
trained on whole sequences. No free drafts: the figures are those of the denoising.
"""

from __future__ import annotations

import time
from dataclasses import replace

from bench.peers.items import Item
from bench.peers.peer import Answer, Unavailable

from diffusion_core.config import EngineConfig, from_environment
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.errors import CheckpointError, EngineError
from diffusion_core.requests import DecodingParams, Policy

FAST_DLLM = DecodingParams(policy=Policy.CONFIDENCE, tau=0.9, tau_low=0.0, use_lookup=False)

MEASURING_S = 60.0  # an engine with a drafter is measured in seconds


class Engines:
    """One engine for each dtype, shared by the policies; every one without a cache of prompts."""

    def __init__(self, model: str, threads: int) -> None:
        self._model, self._threads = model, threads
        self._engines: dict[str, Engine] = {}

    def get(self, dtype: str) -> Engine:
        """The engine for ``dtype`` (empty: the environment's, or `auto`)."""
        if dtype not in self._engines:
            config = from_environment(
                EngineConfig, "engine", model=self._model, edit_model=self._model, num_threads=self._threads,
                prefix_cache_bytes=0, dtype=dtype or None,
            )  # fmt: skip
            self._engines[dtype] = engine = Engine(config)
            engine.start()
            # An idle engine measures what its forwards cost: while another peer runs that would disturb both.
            give_up = time.monotonic() + MEASURING_S
            while engine.health().status == "loading" or (
                not any(report.costs for report in engine.health().decoding) and time.monotonic() < give_up
            ):
                time.sleep(0.05)
        return self._engines[dtype]

    def load(self, dtype: str) -> LoadedModel:
        """The model of that engine, once it is loaded: for its tokenizer, its encoder and its stop tokens."""
        engine = self.get(dtype)
        while (health := engine.health()).status == "loading":
            time.sleep(0.05)
        if health.status != "ready":
            raise EngineError("; ".join(model.detail for model in health.models if model.detail) or "not loaded")
        return engine.loaded_models()[0]

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()


class UnmaskPeer:
    """The engine with one way of decoding."""

    def __init__(self, name: str, engine: Engine, decoding: DecodingParams) -> None:
        self.name, self._engine, self._decoding = name, engine, decoding

    def describe(self) -> str:
        health = self._engine.health()
        return f"unmask {health.version}, {health.device} {health.dtype}, {self._decoding.policy.value}"

    def answer(self, item: Item) -> Answer:
        try:
            result = self._engine.submit(replace(item.request, decoding=self._decoding)).future.result()
        except CheckpointError as error:
            raise Unavailable(str(error)) from None
        timings = result.timings
        if result.num_reused_tokens or result.num_prompt_tokens != len(item.tokens):
            raise EngineError(f"{item.task_id}: the engine did not compute the very prompt that the others get")
        return Answer(
            text=result.text, prefill_s=timings.prefill_ms / 1000, decode_s=timings.denoise_ms / 1000,
            total_s=timings.total_ms / 1000, num_forwards=result.num_forwards,
        )  # fmt: skip

    def close(self) -> None:
        """The engine is shared: closed with the others."""
