r"""Many GPUs: process group, sharding, and what the processes tell each other.

Start one process for each GPU with torchrun; nothing else changes, and any number of processes may go on from a
checkpoint of any other number::

    torchrun --standalone --nproc-per-node 8 -m diffusion_core.commands train mask_stage --out runs/mask \
        --set data.corpus=corpora/code --set data.sequences=256

On several machines under Slurm (a complete script stands in ``train/examples/train.slurm``)::

    #SBATCH --nodes=4 --ntasks-per-node=1 --gpus-per-node=8 --signal=TERM@180
    srun torchrun --nnodes=$SLURM_NNODES --nproc-per-node=8 --rdzv-backend=c10d \
        --rdzv-id=$SLURM_JOB_ID --rdzv-endpoint=$(scontrol show hostnames | head -1):29500 --max-restarts=3 \
        -m diffusion_core.commands train mask_stage --out $SCRATCH/mask --time-budget 23h

``--max-restarts`` is the elastic restart: when a process dies, torchrun starts all of them again and each goes on
from the last checkpoint in ``--out``, a folder that every machine sees. ``--nnodes=2:4`` lets it go on with fewer.

Two ways to divide the work, chosen by what is trained. A :class:`Transformer` is **sharded** with FSDP2: layer by
layer, parameters, gradients and moments are divided. Anything else (adapter, draft head) is small and **replicated**;
its gradients are summed. The global batch is ``data.sequences``, however many processes divide it.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous

from diffusion_core.errors import ConfigError
from diffusion_core.model.transformer import Transformer
from train.errors import TrainingError

BUCKET_ELEMENTS = 16 * 1024 * 1024
# One process evaluates and saves while the others wait.
COLLECTIVE_TIMEOUT = timedelta(hours=1)
GLOO_SETTLE_SECONDS = 0.25


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` of ``size`` on ``device``."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over all processes, in float64."""
        if self.size == 1:
            return list(values)
        packed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(packed)
        return [float(value) for value in packed.tolist()]

    def gather_text(self, text: str) -> list[str]:
        """Every process's text, by rank."""
        if self.size == 1:
            return [text]
        raw = torch.frombuffer(bytearray(text.encode() or b"\0"), dtype=torch.uint8).to(self.device)
        lengths = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(raw)], device=self.device))
        longest = max(int(length) for length in lengths)
        padded = torch.zeros(longest, dtype=torch.uint8, device=self.device)
        padded[: len(raw)] = raw
        rows = [torch.zeros_like(padded) for _ in range(self.size)]
        dist.all_gather(rows, padded)
        cut = [bytes(row[: int(length)].tolist()) for row, length in zip(rows, lengths, strict=True)]
        return ["" if part == b"\0" else part.decode() for part in cut]

    def sum_by_name(self, sums: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """(sum, count) by name, added over all processes; a name that some processes lack counts there as nothing."""
        if self.size == 1:
            return sums
        names = sorted({name for text in self.gather_text(json.dumps(list(sums))) for name in json.loads(text)})
        flat = self.sum([value for name in names for value in sums.get(name, (0.0, 0.0))])
        return {name: (flat[2 * i], flat[2 * i + 1]) for i, name in enumerate(names)}

    def barrier(self) -> None:
        """Wait for every process."""
        if self.size > 1:
            self.sum([0.0])

    def agree(self, error: Exception | None) -> None:
        """Raise in every process when one of them has an error: its own where it has one, else what others report."""
        texts = self.gather_text("" if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, text in enumerate(texts):
            if text:
                raise TrainingError(f"process {rank} failed: {text}")


def choose_device(name: str, local_rank: int) -> torch.device:
    """The device of this process; ``auto`` is its CUDA GPU if there is one, else the CPU.

    Raises:
        ConfigError: the device is unknown or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device is {name!r}: auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("--device is cuda, and torch finds no CUDA GPU: use cpu or auto")
        index = local_rank if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise ConfigError(f"process {local_rank} has no GPU: this machine has {torch.cuda.device_count()}")
        return torch.device("cuda", index)
    return device


@contextmanager
def join_world(device_name: str = "auto") -> Iterator[World]:
    """The processes that torchrun started (its environment variables), or this one alone."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield World(0, 1, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    # torchrun keeps its store when it restarts processes, and with it the addresses of those that died: each attempt
    # looks under names of its own.
    store, rank, size = next(iter(rendezvous("env://", timeout=COLLECTIVE_TIMEOUT)))
    attempt = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{size}"
    own = PrefixStore(f"unmask/{attempt}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
    try:
        world = World(rank, size, device)
        yield world
        world.barrier()
    finally:
        dist.destroy_process_group()
        if backend == "gloo":
            # FSDP's caches keep gloo's threads alive. One that only now lets go of its last tensor needs Python's lock,
            # and asking for it while Python shuts down aborts the process: let it have the lock first.
            time.sleep(GLOO_SETTLE_SECONDS)


def is_sharded(model: nn.Module, world: World) -> bool:
    """Whether this model's parameters are divided among the processes (else every process has all of them)."""
    return world.size > 1 and isinstance(model, Transformer)


def shard(model: Transformer, world: World) -> Transformer:
    """A copy of ``model`` whose layers are divided among the processes.

    The original stays whole: the main process evaluates and saves it (:func:`gather_into`), the others empty it.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    sharded = copy.deepcopy(model)
    # Gradients of bfloat16 layers are summed in float32.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for layer in sharded.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    # The head reads the embedding after the forward has returned, so the root's own parameters stay whole until then.
    fully_shard(sharded, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    # Buffers made by a first call inside inference mode (a rollout) could not be written by a training step later.
    for part in (*sharded.layers, sharded):
        assert isinstance(part, FSDPModule)
        part.unshard()
        part.reshard()
    if world.is_main:
        model.to("cpu")
    else:
        model.to("meta")
    return sharded


def gather_into(whole: nn.Module, sharded: nn.Module, world: World) -> None:
    """Copy the shards of all processes into ``whole`` in the main process; every process takes part."""
    targets = dict(whole.named_parameters()) if world.is_main else {}
    with torch.no_grad():
        for name, parameter in sharded.state_dict().items():
            full = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            if name in targets:
                targets[name].copy_(full)


def sum_gradients(gradients: Sequence[torch.Tensor], world: World) -> None:
    """Add up replicated gradients over all processes in place, some 64 MB at a time."""
    if world.size == 1:
        return
    bucket: list[torch.Tensor] = []
    for gradient in [*gradients, None]:
        if gradient is not None:
            bucket.append(gradient)
        if bucket and (gradient is None or sum(part.numel() for part in bucket) >= BUCKET_ELEMENTS):
            flat = torch.cat([part.reshape(-1) for part in bucket])
            dist.all_reduce(flat)
            for part, summed in zip(bucket, torch.split(flat, [part.numel() for part in bucket]), strict=True):
                part.copy_(summed.view_as(part))
            bucket = []
