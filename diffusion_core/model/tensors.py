"""Taking over stored tensors into a module's own, with errors that name the tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from diffusion_core.errors import CheckpointError


@torch.no_grad()
def copy_tensors(own: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor], what: str) -> None:
    """Copy ``stored`` into ``own``, tensor by tensor; ``what`` begins the error messages.

    Raises:
        CheckpointError: a tensor is missing, unexpected or has another shape; the message names it.
    """
    if missing := sorted(set(own) - set(stored)):
        raise CheckpointError(f"{what}: tensor {missing[0]} is missing")
    if unexpected := sorted(set(stored) - set(own)):
        raise CheckpointError(f"{what}: tensor {unexpected[0]} is not expected")
    for name, target in own.items():
        if stored[name].shape != target.shape:
            found, wanted = tuple(stored[name].shape), tuple(target.shape)
            raise CheckpointError(f"{what}: tensor {name} has shape {found}, expected {wanted}")
        target.copy_(stored[name])
