"""The one Transformer: Llama, Qwen2 and Qwen3 shapes by flags, for training and for serving alike.

One call evaluates rows: clean tokens, then slots of draft blocks. What each row sees is given by the caller as a
boolean mask (``masks.py``); positions are absolute. Shape letters: see ``rope.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS, ContextKeys, KVCache, equal_spans
from diffusion_core.model.layers import ForwardContext, RMSNorm, TransformerLayer
from diffusion_core.model.masks import Visibility
from diffusion_core.model.native_forward import NativeForward, RowsOf, why_not_native
from diffusion_core.model.output_head import OutputHead, pack_head
from diffusion_core.model.packed import count_bytes, layer_packer, replace_linears
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.rope import RotaryEmbedding
from diffusion_core.model.tiles import TiledSpan, tile_height, tile_spans


class Transformer(nn.Module):
    """Embedding, layers, final norm and output head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(TransformerLayer(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = (
            None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        )
        self.rope = RotaryEmbedding(config)
        self.packed_head: OutputHead | None = None
        self.native: NativeForward | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, and so of the cache."""
        return self.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.norm.weight.device

    def embed(self, input_ids: torch.Tensor, adapter: GatedAdapter | None) -> torch.Tensor:
        """Embeddings [B, T, D] of ``input_ids`` [B, T]; mask tokens take the adapter's own embedding."""
        if adapter is None:
            return self.embed_tokens(input_ids)  # type: ignore[no-any-return]
        is_masked = input_ids == adapter.mask_token_id
        x = self.embed_tokens(input_ids.masked_fill(is_masked, 0))
        return torch.where(is_masked.unsqueeze(-1), adapter.mask_embedding.to(x.dtype), x)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        visible: torch.Tensor,
        *,
        cache: ContextKeys | None = None,
        adapter: GatedAdapter | None = None,
        first_slot: int | None = None,
        taps: Sequence[int] = (),
        tapped: list[torch.Tensor] | None = None,
        only: slice = slice(None),
    ) -> torch.Tensor:
        """Evaluate rows and return their normalised hidden states [B, T, D]; :meth:`logits` turns them to scores.

        Args:
            input_ids: tokens [B, T].
            positions: absolute positions [B, T].
            visible: bool [T, T] or [B, T, T], True where a row sees another row of this call; of more than
                ``MAX_DECODE_ROWS`` rows that all see the same also [1, T]. With a KVCache (no [B, T, T]) every row also
                sees all committed keys; with a FixedContext the mask covers it too.
            cache: the rows' keys and values are written behind the committed ones; committing them is the caller's.
            adapter: acts on the slot rows.
            first_slot: the rows from here on are slots (None: there are none).
            taps: numbers of layers whose input is wanted, for a draft head; ``num_layers`` means the last output.
            tapped: the list that receives what ``taps`` asks for, each [B, T, D], in order of layers.
            only: the layers that are run, for measuring what one costs; the result then means nothing.
        """
        slots_from = input_ids.shape[1] if first_slot is None else first_slot
        if self.native is not None and isinstance(cache, KVCache) and len(input_ids) == 1:
            rows = RowsOf(cache, range(input_ids.shape[1]), visible)
            return self.run_native(
                *(input_ids, positions, (rows,)),
                adapter=adapter,
                first_slot=slots_from,
                taps=taps,
                tapped=tapped,
                only=only,
            )
        if cache is not None:
            cache.reserve(cache.length + input_ids.shape[1])
            visible = cache.widen(visible)
        mask = visible if visible.dim() == 3 else visible.unsqueeze(0)
        is_decoding = len(input_ids) == 1 and input_ids.shape[1] <= MAX_DECODE_ROWS
        spans = equal_spans(mask[0]) if is_decoding else ()
        mask = mask.to(input_ids.device)
        x = self.embed(input_ids, adapter)
        tiles = self._tile(mask[0], spans, x) if is_decoding else ()
        seen = Visibility(mask)
        context = ForwardContext(self.rope(positions, x.dtype), seen, cache, adapter, slots_from, tiles)
        for number, layer in enumerate(self.layers[only]):
            if tapped is not None and number in taps:
                tapped.append(x)
            x = layer(x, context)
        if tapped is not None and len(self.layers) in taps:
            tapped.append(x)
        normalised: torch.Tensor = self.norm(x)
        return normalised

    def run_native(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        sequences: Sequence[RowsOf],
        *,
        adapter: GatedAdapter | None,
        first_slot: int,
        taps: Sequence[int] = (),
        tapped: list[torch.Tensor] | None = None,
        only: slice = slice(None),
    ) -> torch.Tensor:
        """As :meth:`forward`, of the rows of one or more sequences, by the compiled kernels."""
        assert self.native is not None
        for part in sequences:
            part.cache.reserve(part.cache.length + len(part.rows))
        x = self.embed(input_ids, adapter)[0]
        wanted = tuple(taps) if tapped is not None else ()
        hidden, found = self.native.run(
            x, positions[0], sequences, adapter=adapter, first_slot=first_slot, taps=wanted, only=only
        )
        if tapped is not None:
            tapped.extend(found)
        return hidden.unsqueeze(0)

    def prepare_native(self) -> None:
        """Let the compiled kernels run forwards where they can: packed weights in 8 bits, on a CPU that has them."""
        if self.dtype == torch.bfloat16 and not why_not_native(self.config, list(self.layers)):
            self.native = NativeForward(self)

    def _tile(
        self, visible: torch.Tensor, spans: tuple[tuple[int, int, int], ...], x: torch.Tensor
    ) -> tuple[TiledSpan, ...]:
        group = self.config.num_heads // self.config.num_kv_heads
        return tile_spans(visible, spans, tile_height(x.device, x.dtype), group, x.dtype)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores [..., V], float32, of hidden states [..., D]."""
        return self.scores(hidden).float()

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """As :meth:`logits`, in the dtype in which the head gives them."""
        if self.packed_head is not None:
            return self.packed_head.scores(hidden)
        return F.linear(hidden, self.head_weight)

    def best(self, hidden: torch.Tensor) -> torch.Tensor:
        """The token with the highest of :meth:`scores` of each row [R, D], the first of equals: int64 [R]."""
        if self.packed_head is not None:
            return self.packed_head.best(hidden)
        return self.scores(hidden).max(-1).indices

    @property
    def head_weight(self) -> torch.Tensor:
        """The plain weight [V, D] of the output head: the embedding's where the two are tied."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def pack(self, *, quantize: Quantization = Quantization.NONE, device: torch.device | None = None) -> None:
        """Lay the weights out for serving (packed.py): no training, no saving after.

        With ``quantize`` they have 8 or 4 bits: smaller, and near the plain model instead of equal. Layers that are
        quantised move to ``device`` one by one (None: they stay); the rest is the caller's to move.
        """
        device = device or self.device
        # The plain head stays for those who want single rows of it: mapped, and so without memory until touched.
        self.packed_head = pack_head(self.head_weight, quantize) if device.type == "cpu" else None
        replace_linears(self, layer_packer(quantize, device))
        self.prepare_native()

    @property
    def num_bytes(self) -> int:
        """Size of the weights, in bytes."""
        total = count_bytes(self)
        if self.packed_head is not None:
            total += self.packed_head.num_bytes
            if self.lm_head is not None:  # the plain form is a mapping that nobody reads
                total -= self.lm_head.weight.numel() * self.lm_head.weight.element_size()
        return total
