"""The gated adapter: low-rank deltas that act on slot rows only, and the embedding of the mask token.

Clean rows are the untouched base, so the base's quality is the floor and its key-value cache stays exact
(training.md section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import TOKEN_IDS, ModelConfig
from diffusion_core.model.tensors import copy_tensors

if TYPE_CHECKING:
    from diffusion_core.model.transformer import Transformer


def adapted_layers(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Name -> (in_features, out_features) of every linear layer that an adapter may change."""
    D, inner = config.hidden_size, config.intermediate_size
    attended = config.num_heads * config.head_dim
    qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    shapes = {
        "attention.qkv_proj": (D, qkv),
        "attention.o_proj": (attended, D),
        "mlp.gate_up_proj": (D, 2 * inner),
        "mlp.down_proj": (inner, D),
    }
    return {f"layers.{i}.{name}": shape for i in range(config.num_layers) for name, shape in shapes.items()}


class GatedAdapter(nn.Module):
    """Low-rank pairs (down [rank, in], up [out, rank]) by layer name, and ``mask_embedding`` [D].

    The delta of a layer is ``alpha / rank * up(down(x))``. ``mask_token_id`` is an id of the vocabulary, or
    ``vocab_size`` when the base has no mask token: an id that no tokenizer gives and no logit speaks of. ``token_ids``
    int64 [N] are the tokens that it drafts, in their order; None: all.
    """

    token_ids: torch.Tensor | None

    def __init__(self, config: ModelConfig, *, rank: int, alpha: float, mask_token_id: int | None = None) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self.mask_token_id = config.vocab_size if mask_token_id is None else mask_token_id
        self.mask_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.register_buffer("token_ids", None, persistent=False)
        self._served: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._scores: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._shapes = adapted_layers(config)
        self._vocab_size = config.vocab_size
        # Parameter names may not contain dots; the file's names are restored in `named_tensors`.
        self._down = nn.ParameterDict()
        self._up = nn.ParameterDict()
        for name, (num_in, num_out) in self._shapes.items():
            self._down[name.replace(".", "/")] = nn.Parameter(torch.zeros(rank, num_in))
            self._up[name.replace(".", "/")] = nn.Parameter(torch.zeros(num_out, rank))

    def add_delta(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """``y`` [..., out] of layer ``name`` with what the adapter adds for its inputs ``x`` [..., in].

        Product and sum are one operation: on a CPU the passes over the wide output cost more than the products.
        """
        down, up = self.pair(name)
        low = x.reshape(-1, x.shape[-1]) @ down.T
        wide = torch.addmm(y.reshape(-1, y.shape[-1]), low, up.T, alpha=self.scale)
        return wide.view(y.shape)

    def change(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As :meth:`add_delta`; while serving on a CPU ``y`` itself is changed.

        Kernels for tiny products in bfloat16 take longer to begin than these take in float32.
        """
        if not self._served:
            return self.add_delta(name, x, y)
        down, up = self._served[name]
        low = x.reshape(-1, x.shape[-1]).float() @ down
        return y.add_((low @ up).view(y.shape))

    def served_pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """``down`` [in, rank] and ``up`` [rank, out] of layer ``name`` in float32; the scale is in ``up``."""
        if name in self._served:
            return self._served[name]
        down, up = self.pair(name)
        return down.detach().float().T.contiguous(), (up.detach().float().T * self.scale).contiguous()

    def bind(self, base: Transformer, *, serve: bool = False) -> None:
        """Take what drafting wants of ``base``: the rows of its output head for :attr:`token_ids`.

        To ``serve`` on a CPU they are packed, and the pairs are kept as its forwards want them: laid out for the
        compiled kernels, or in float32, transposed, with their scale.
        """
        if self.token_ids is not None:
            rows = base.head_weight.detach()[self.token_ids]
            if serve:
                from diffusion_core.model.packed import PackedMatrix

                self._scores = PackedMatrix(rows).linear
            else:
                self._scores = partial(F.linear, weight=rows)
        if serve and base.native is not None:
            base.native.prepare(self)  # now, and not while the first answer is waited for
        elif serve:
            for name in self._shapes:
                self._served[name] = self.served_pair(name)

    @property
    def has_own_head(self) -> bool:
        """Whether :meth:`guess` can be asked."""
        return self._scores is not None

    @torch.inference_mode()
    def guess(self, hidden: torch.Tensor) -> list[int]:
        """The best token of :attr:`token_ids` for each of the slots' final hidden states [R, D]."""
        assert self._scores is not None and self.token_ids is not None, "bind() comes first"
        tokens: list[int] = self.token_ids[self._scores(hidden).max(-1).indices].tolist()
        return tokens

    @torch.inference_mode()
    def guess_surely(self, hidden: torch.Tensor) -> tuple[list[int], list[float]]:
        """As :meth:`guess`, with the probability of each token among :attr:`token_ids`."""
        assert self._scores is not None and self.token_ids is not None, "bind() comes first"
        scores = self._scores(hidden)
        best = scores.max(-1).indices
        sure = scores.float().softmax(-1).gather(-1, best.unsqueeze(-1)).squeeze(-1)
        return self.token_ids[best].tolist(), sure.tolist()

    @property
    def scale(self) -> float:
        """What a pair's product is multiplied with."""
        return self.alpha / self.rank

    def pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """``down`` [rank, in] and ``up`` [out, rank] of layer ``name``."""
        key = name.replace(".", "/")
        return self._down[key], self._up[key]

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors under the names of the file format: ``layers.{i}.{layer}.down`` / ``.up`` and ``mask_embedding``."""
        tensors = {"mask_embedding": self.mask_embedding.detach()}
        for name in self._shapes:
            tensors[f"{name}.down"] = self._down[name.replace(".", "/")].detach()
            tensors[f"{name}.up"] = self._up[name.replace(".", "/")].detach()
        if self.token_ids is not None:
            tensors[TOKEN_IDS] = self.token_ids
        return tensors

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over ``tensors``; ``token_ids`` may be among them.

        Raises:
            CheckpointError: a tensor is missing, unexpected or has another shape, or a token id is outside the
                base's vocabulary; the message names it.
        """
        token_ids = tensors.get(TOKEN_IDS)
        copy_tensors(
            {name: own for name, own in self.named_tensors().items() if name != TOKEN_IDS},
            {name: stored for name, stored in tensors.items() if name != TOKEN_IDS},
            "adapter",
        )
        if token_ids is not None:
            self.keep_to(token_ids)

    def keep_to(self, token_ids: torch.Tensor) -> None:
        """Draft only ``token_ids`` [N].

        Raises:
            CheckpointError: there is none, or one is outside the base's vocabulary.
        """
        most = self._vocab_size - 1
        if token_ids.dim() != 1 or not len(token_ids) or int(token_ids.min()) < 0 or int(token_ids.max()) > most:
            raise CheckpointError(f"adapter: token_ids must be a list of numbers from 0 to {most}")
        self.token_ids = token_ids.to(self.mask_embedding.device, torch.long)

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Values to begin training with: the deltas are zero, and the first gradient already reaches every ``up``."""
        for down in self._down.values():
            down.copy_(torch.randn(down.shape, generator=generator) * down.shape[1] ** -0.5)
        for up in self._up.values():
            up.zero_()

    @torch.no_grad()
    def randomise(self, generator: torch.Generator, scale: float = 0.02) -> None:
        """Draw every tensor from a normal distribution: for tests, and to begin training from noise."""
        for parameter in self.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
