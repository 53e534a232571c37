"""AdamW over float32 masters of what is trained, clipping by the global norm, and the learning rate over a run.

Gradients of micro-batches are summed in the masters in float32; weights of a lower precision are rounded from the
masters after every step. Under FSDP2 each process holds and moves its own shard only: AdamW works element by element,
so shards need nothing from each other but the norm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from train.config import OptimConfig, ScheduleConfig
from train.errors import TrainingError


def learning_rate(config: ScheduleConfig, base: float, step: int, progress: float) -> float:
    """Rate of optimiser step ``step`` (from 0) at ``progress`` (0 to 1) of the run: a pure function.

    The warm-up counts in steps and multiplies what the shape gives.
    """
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    done = min(1.0, max(0.0, (progress - config.decay_start) / (1 - config.decay_start)))
    match config.shape:
        case "constant":
            share = 1.0
        case "linear":
            share = 1 - done
        case _:
            share = (1 + math.cos(math.pi * done)) / 2
    return base * warmup * (config.final_ratio + (1 - config.final_ratio) * share)


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class MasterOptimizer:
    """AdamW on this process's part of the trained parameters.

    ``masters`` maps a parameter's name to the float32 tensor that AdamW moves. For a float32 parameter it shares the
    parameter's memory; otherwise, unless ``master_weights`` is off, it is a copy.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> None:
        self.parameters = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        self.masters: dict[str, torch.Tensor] = {}
        for name, parameter in self.parameters.items():
            local = local_tensor(parameter.detach())
            is_copy = config.master_weights and local.dtype != torch.float32
            self.masters[name] = (local.float() if is_copy else local).requires_grad_()
        self._config = config
        if not self.masters:
            raise TrainingError("the model has no trained parameters: nothing in it asks for a gradient")
        self.adamw = torch.optim.AdamW(
            self._make_groups(),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
        )

    def _make_groups(self) -> list[dict[str, object]]:
        """Vectors (norms, biases, embeddings of one token) are not decayed: their size carries meaning."""
        matrices = [m for name, m in self.masters.items() if self.parameters[name].dim() >= 2]
        vectors = [m for name, m in self.masters.items() if self.parameters[name].dim() < 2]
        groups = [(matrices, self._config.weight_decay), (vectors, 0.0)]
        return [{"params": group, "weight_decay": decay} for group, decay in groups if group]

    def collect_gradients(self) -> None:
        """Add the parameters' gradients to the masters' and clear them."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            master, found = self.masters[name], local_tensor(parameter.grad)
            if master.grad is None:
                master.grad = found.to(master.dtype)
            else:
                master.grad.add_(found)
            parameter.grad = None

    def drop_gradients(self) -> None:
        """Forget all gradients, of parameters and masters."""
        for name, parameter in self.parameters.items():
            parameter.grad = self.masters[name].grad = None

    def gradients(self) -> list[torch.Tensor]:
        """Gradients of all masters in a fixed order; those that no micro-batch reached are zero."""
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        return [master.grad for master in self.masters.values() if master.grad is not None]

    def squared_norm(self) -> torch.Tensor:
        """Sum of squares of this process's gradients, a float32 scalar."""
        norms = torch._foreach_norm([gradient.float() for gradient in self.gradients()])
        return torch.stack(norms).square().sum()

    def scale_gradients(self, factor: float) -> None:
        """Multiply every gradient."""
        torch._foreach_mul_(self.gradients(), factor)

    def step(self, rate: float) -> None:
        """One AdamW step at ``rate``; then the parameters are rounded from their masters and gradients are gone."""
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.write_parameters()

    @torch.no_grad()
    def write_parameters(self) -> None:
        """Copy the masters into the parameters they belong to (nothing happens where they share memory)."""
        pairs = [(local_tensor(parameter), self.masters[name]) for name, parameter in self.parameters.items()]
        apart = [(local, master) for local, master in pairs if local.data_ptr() != master.data_ptr()]
        if apart:
            torch._foreach_copy_([local for local, _ in apart], [master for _, master in apart])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything a resumed run needs, by name: ``master.NAME``, ``exp_avg.NAME``, ``exp_avg_sq.NAME``.

        The tensors are those in use, not copies. Moments exist from the start, so that a state can be read into them.
        """
        named: dict[str, torch.Tensor] = {}
        for name, master in self.masters.items():
            moments = self.adamw.state[master]
            if not moments:
                moments["step"] = torch.tensor(0.0)
                moments["exp_avg"], moments["exp_avg_sq"] = torch.zeros_like(master), torch.zeros_like(master)
            named[f"master.{name}"] = master.detach()
            for kind in ("exp_avg", "exp_avg_sq"):
                named[f"{kind}.{name}"] = moments[kind].detach()
        return named

    def set_step(self, step: int) -> None:
        """Tell AdamW how many steps its moments have seen, and round the parameters from the masters."""
        for moments in self.adamw.state.values():
            moments["step"] = torch.tensor(float(step))
        self.write_parameters()
