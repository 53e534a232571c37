"""The gated adapter: low-rank deltas that act on slot rows only, and the embedding of the mask token.

Clean rows are the untouched base, so the base's quality is the floor and its key-value cache stays exact
(training.md section 2).
"""

from __future__ import annotations

import torch
from torch import nn

from diffusion_core.model.config import ModelConfig
from diffusion_core.model.tensors import copy_tensors


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
    ``vocab_size`` when the base has no mask token: an id that no tokenizer gives and no logit speaks of.
    """

    def __init__(self, config: ModelConfig, *, rank: int, alpha: float, mask_token_id: int | None = None) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self.mask_token_id = config.vocab_size if mask_token_id is None else mask_token_id
        self.mask_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self._shapes = adapted_layers(config)
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
        return tensors

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over ``tensors``.

        Raises:
            CheckpointError: a tensor is missing, unexpected or has another shape; the message names it.
        """
        copy_tensors(self.named_tensors(), tensors, "adapter")

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
