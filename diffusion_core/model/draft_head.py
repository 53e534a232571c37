"""The draft head: a few layers that denoise a block from the base model's hidden states of the clean tokens.

The other kind of drafter (training.md section 2). Its layers read one fused feature per committed token, made from
the base's hidden states at several depths, as extra keys and values. A draft costs ``num_layers`` layers instead of
the whole model, and the base's forward carries no slot rows.

The rows of a block are the anchor (the newest token, which the base has not evaluated yet) and slots behind it. Each
row's stream begins with its embedding plus the feature of the last committed token, which already says much about
the next tokens. Drafts are guesses, so scores are needed for frequent tokens only: the head's vocabulary is a part
of the base's, and its output matrix those rows of the base's.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.kv_cache import ContextKeys, FixedContext, KVCache
from diffusion_core.model.layers import ForwardContext, RMSNorm, TransformerLayer
from diffusion_core.model.masks import Visibility
from diffusion_core.model.packed import PackedMatrix, pack_linear, replace_linears
from diffusion_core.model.rope import RotaryEmbedding
from diffusion_core.model.tensors import copy_tensors
from diffusion_core.model.transformer import Transformer


def head_visibility(num_rows: int, num_known: int) -> torch.Tensor:
    """Bool [num_rows, num_rows]: known rows are causal, as the base's clean rows are; slots see the whole block."""
    visible = torch.ones(num_rows, num_rows, dtype=torch.bool)
    visible[:num_known] = visible[:num_known].tril()
    return visible


class DraftHead(nn.Module):
    """Layers that fill a block. Logits are shifted: a row speaks of the position after its own.

    ``tap_layers`` are numbers for :meth:`Transformer.forward`'s ``taps``. Every tap is normalised on its own before
    fusing, because the scale of hidden states grows by orders of magnitude with depth. ``vocabulary_size`` tokens can
    be drafted; ``token_ids`` int64 [vocabulary_size] says which. :meth:`draft` takes ``num_steps`` denoising steps.
    """

    token_ids: torch.Tensor

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_layers: int,
        tap_layers: tuple[int, ...],
        vocabulary_size: int,
        num_steps: int = 1,
    ) -> None:
        super().__init__()
        if not tap_layers or max(tap_layers) > config.num_layers or min(tap_layers) < 0:
            raise CheckpointError(f"draft head: tap_layers {tap_layers} must lie within 0 to {config.num_layers}")
        if list(tap_layers) != sorted(set(tap_layers)):
            raise CheckpointError(f"draft head: tap_layers {tap_layers} must ascend without repeats")
        if not 0 < vocabulary_size <= config.vocab_size:
            raise CheckpointError(f"draft head: vocabulary_size {vocabulary_size} must lie in 1 to {config.vocab_size}")
        if num_steps < 1:
            raise CheckpointError(f"draft head: num_steps is {num_steps}, at least 1")
        self.tap_layers, self.num_steps = tap_layers, num_steps
        self.config = dataclasses.replace(config, num_layers=num_layers)
        D = config.hidden_size
        self.mask_embedding = nn.Parameter(torch.zeros(D))
        self.tap_norms = nn.ModuleList(RMSNorm(D, config.rms_norm_eps) for _ in tap_layers)
        self.embed_norm = RMSNorm(D, config.rms_norm_eps)
        self.fuse = nn.Linear(len(tap_layers) * D, D, bias=False)
        self.carry = nn.Linear(D, D, bias=False)
        self.layers = nn.ModuleList(TransformerLayer(self.config, i) for i in range(num_layers))
        self.norm = RMSNorm(D, config.rms_norm_eps)
        self.rope = RotaryEmbedding(config)
        self.register_buffer("token_ids", torch.arange(vocabulary_size))
        self._scores: PackedMatrix | torch.Tensor | None = None

    def new_cache(self, capacity: int, like: KVCache) -> KVCache:
        """A cache for the head's own keys and values, of the kind of the base's cache."""
        keys, _ = like.committed(0)
        return KVCache(self.config, capacity=capacity, dtype=keys.dtype, device=keys.device)

    def make_features(self, tapped: list[torch.Tensor]) -> torch.Tensor:
        """One feature per clean token, [B, T, D], from one [B, T, D] per tap layer."""
        return self.fuse(  # type: ignore[no-any-return]
            torch.cat([norm(x) for norm, x in zip(self.tap_norms, tapped, strict=True)], dim=-1)
        )

    def project(self, features: torch.Tensor, positions: torch.Tensor) -> FixedContext:
        """Keys and values of clean tokens at ``positions`` [B, T] from their ``features`` [B, T, D]."""
        nothing = Visibility(torch.empty(0, dtype=torch.bool))  # nobody attends
        context = ForwardContext(
            self.rope(positions, features.dtype), nothing, None, None, first_slot=features.shape[1]
        )
        keys, values = [], []
        for layer in self.layers:
            assert isinstance(layer, TransformerLayer)
            _, layer_keys, layer_values = layer.attention.project(layer.attention_norm(features), context)
            keys.append(layer_keys)
            values.append(layer_values)
        return FixedContext(keys, values)

    def read(self, tapped: list[torch.Tensor], first_position: int, cache: KVCache) -> torch.Tensor:
        """Commit the features of clean tokens at ``first_position`` on; the last token's feature [1, D] is returned.

        ``tapped`` is one [1, T, D] per tap layer.
        """
        features = self.make_features(tapped)
        rows = features.shape[1]
        assert cache.length == first_position, "the head reads every committed token once, in order"
        cache.reserve(first_position + rows)
        positions = torch.arange(first_position, first_position + rows, device=features.device).unsqueeze(0)
        fixed = self.project(features, positions)
        for number in range(len(self.layers)):
            cache.write(number, *fixed.at(number))
        cache.commit(rows)
        return features[:, -1]

    def forward(
        self,
        embedded: torch.Tensor,
        carried: torch.Tensor,
        positions: torch.Tensor,
        visible: torch.Tensor,
        context: ContextKeys,
    ) -> torch.Tensor:
        """Normalised hidden states [B, T, D] of block rows; :meth:`scores` turns them to logits.

        Args:
            embedded: embedding of each row's token, or ``mask_embedding``, [B, T, D].
            carried: feature of the last committed token before each row's block, [B, T or 1, D].
            positions: absolute positions [B, T].
            visible: as for :meth:`Transformer.forward`.
            context: the head's own keys and values of the clean tokens.
        """
        context.reserve(context.length + embedded.shape[1])
        wide = context.widen(visible)
        mask = (wide if wide.dim() == 3 else wide.unsqueeze(0)).to(embedded.device)
        # Embeddings are many times smaller than hidden states: normalised, the token weighs as much as the feature.
        x = self.embed_norm(embedded) + self.carry(carried)
        shared = ForwardContext(self.rope(positions, x.dtype), Visibility(mask), context, None, x.shape[1])
        for layer in self.layers:
            x = layer(x, shared)
        return self.norm(x)  # type: ignore[no-any-return]

    def bind(self, base: Transformer, *, serve: bool = False) -> None:
        """Take the rows of ``base``'s output head that score the head's vocabulary; packed to ``serve`` on a CPU."""
        rows = base.head_weight.detach()[self.token_ids]
        self._scores = PackedMatrix(rows) if serve else rows
        if serve:
            replace_linears(self.layers, pack_linear)

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocabulary_size], float32, over :attr:`token_ids`."""
        assert self._scores is not None, "bind() comes first"
        if isinstance(self._scores, PackedMatrix):
            return self._scores.linear(hidden).float()
        return F.linear(hidden, self._scores).float()

    def draft(
        self, base: Transformer, anchor: int, carried: torch.Tensor, num_tokens: int, cache: KVCache
    ) -> list[int]:
        """A draft of ``num_tokens`` tokens behind ``anchor``, the newest token.

        ``carried`` [1, D] is what :meth:`read` returned for the token before it.

        Each step scores all rows anew and reveals its share of the slots from the left, the order in which the
        verification accepts them; the later steps see what the earlier ones revealed.
        """
        first, device, num_steps = cache.length, carried.device, self.num_steps
        tokens: list[int] = []
        positions = torch.arange(first, first + num_tokens, device=device).unsqueeze(0)
        for step in range(num_steps):
            known = torch.tensor([[anchor, *tokens]], device=device)[:, :num_tokens]
            masks = self.mask_embedding.to(base.dtype).expand(1, num_tokens - known.shape[1], -1)
            embedded = torch.cat((base.embed_tokens(known), masks), dim=1)
            visible = head_visibility(num_tokens, known.shape[1])
            hidden = self(embedded, carried.unsqueeze(1), positions, visible, cache)
            until = -(-num_tokens * (step + 1) // num_steps)
            best = self.scores(hidden[0, len(tokens) : until]).argmax(-1)
            tokens += self.token_ids[best].tolist()
        return tokens

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors under the names of the file format."""
        return dict(self.named_parameters()) | {"token_ids": self.token_ids}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over ``tensors``.

        Raises:
            CheckpointError: a tensor is missing, unexpected or has another shape, or a token id is outside the
                base's vocabulary; the message names it.
        """
        copy_tensors(self.named_tensors(), tensors, "draft head")
        if int(self.token_ids.min()) < 0 or int(self.token_ids.max()) >= self.config.vocab_size:
            raise CheckpointError(f"draft head: token_ids must lie in 0 to {self.config.vocab_size - 1}")

    @torch.no_grad()
    def randomise(self, generator: torch.Generator, scale: float = 0.02) -> None:
        """Draw every matrix from a normal distribution: for tests, and to begin training from noise."""
        for name, parameter in self.named_parameters():
            if not name.endswith("norm.weight") and "tap_norms" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
