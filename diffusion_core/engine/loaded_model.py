"""A checkpoint's parts, joined into what the engine decodes with."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenizers import Tokenizer

from diffusion_core.checkpoints.adapter import Drafter, DraftHeadMetadata, GatedAdapterMetadata
from diffusion_core.checkpoints.load import Checkpoint
from diffusion_core.config import EngineConfig
from diffusion_core.engine.prefix_cache import DRAFT_ROOM, PrefixCache
from diffusion_core.engine.prompt_tokens import PromptEncoder
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.captured import CapturedForward
from diffusion_core.model.draft_head import DraftHead
from diffusion_core.model.packed import can_pack
from diffusion_core.model.round_choice import choose_steps, choose_whole
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_forward import WholeForward
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.evaluate import Denoiser


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
) -> CapturedForward | WholeForward | None:
    """What evaluates decoding rounds in static shapes, prepared, by ``engine.capture``; None: ordinary forwards."""
    if capture == "auto":
        capture = "exact" if model.device.type == "cuda" else "off"
    if capture == "off":
        return None
    taps = head.tap_layers if head is not None else ()
    if not taps and (whole := choose_whole(model, adapter, max_positions=max_positions)) is not None:
        return whole
    steps = choose_steps(model, adapter)
    captured = CapturedForward(
        model, adapter, max_positions=max_positions, taps=taps, exact=capture == "exact", ops=steps
    )
    captured.prepare()
    return captured


def assemble(checkpoint: Checkpoint, config: EngineConfig) -> LoadedModel:
    """Join a checkpoint's parts into what the engine decodes with."""
    model, contract = checkpoint.model, checkpoint.diffusion_config
    adapter, head = build_drafter(model, checkpoint.adapter)
    context = min(config.max_context_tokens, model.config.max_position_embeddings)
    captured = build_captured(model, adapter, head, capture=config.capture, max_positions=context + DRAFT_ROOM)
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
