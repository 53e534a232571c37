"""The state of a run on disk: what a resumed run needs to go on exactly as if it had never stopped.

::

    OUT/state/state.json             step, figures, the objective's values, the configuration
    OUT/state/tensors/*.safetensors  masters and moments, the objective's tensors

What an objective remembers is kept for every process by itself (``objective.rank1.NAME``) and given back to the same
process of a run of as many; a run of another number gets the main process's, marked as not its own.

Nothing is pickled. The folder appears whole or not at all, so a full disk or a kill leaves the previous state intact.
Sharded models are written by torch.distributed.checkpoint, each process its own shard, as safetensors too; any number
of processes may read what any other number has written.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor

from diffusion_core.checkpoints.atomic import new_folder, remove
from diffusion_core.checkpoints.safetensors_file import read_header
from diffusion_core.errors import CheckpointError
from train.distributed import World
from train.objective import ObjectiveState
from train.optim import MasterOptimizer

FORMAT = 1
STATE_FILE = "state.json"
TENSORS_FOLDER, WHOLE_FILE = "tensors", "state.safetensors"
OBJECTIVE_PREFIX = "objective."
_DISK_ERRORS = re.compile(r"os error (28|122|27)\b")  # no space left, quota exceeded, file too large


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands. ``progress`` is the share of the run behind it, for a decay over time.

    ``num_processes`` wrote it (0: an older version did, which did not say); ``objective_values`` are the main
    process's, ``objective_values_by_rank`` those of all where there are several.
    """

    step: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    num_tokens: float = 0.0
    num_sequences: float = 0.0
    flops_per_token: float = 0.0
    num_processes: int = 0
    objective_values: dict[str, Any] = field(default_factory=dict)
    objective_values_by_rank: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)


def has_state(folder: Path) -> bool:
    """Whether ``folder`` (OUT/state) holds a state; one that a kill left between two renames is put back first."""
    old = folder.parent / f".{folder.name}.old"
    if not folder.exists() and (old / STATE_FILE).is_file():
        old.rename(folder)
    return (folder / STATE_FILE).is_file()


def read_state(folder: Path) -> RunState:
    """The figures of a state, without its tensors.

    Raises:
        CheckpointError: it is missing, damaged or of another version.
    """
    path = folder / STATE_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise CheckpointError(f"{path} is of another version of Unmask: train it on with that one, or start anew")
        return RunState(**values)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def save_state(
    folder: Path, state: RunState, optimizer: MasterOptimizer, objective: ObjectiveState, world: World, *, shards: bool
) -> None:
    """Write a state atomically; every process takes part, and all of them raise if one fails.

    Raises:
        CheckpointError: the disk is full or cannot be written; the state that was there before is intact.
    """
    extra = {_prefix(world.rank, world.size) + name: t.detach() for name, t in objective.tensors.items()}
    named = optimizer.tensors() | extra
    state = _with_values(state, objective, world)
    draft = folder.parent / f".{folder.name}.new"
    error: Exception | None = None
    with contextlib.ExitStack() as stack:
        if world.is_main:
            error = attempt(folder, lambda: stack.enter_context(new_folder(folder)))
        world.agree(error)
        if shards:
            error = attempt(folder, lambda: _save_shards(draft / TENSORS_FOLDER, named, optimizer))
        elif world.is_main:
            error = attempt(folder, lambda: _save_whole(draft / TENSORS_FOLDER / WHOLE_FILE, named))
        elif extra:  # of a replicated model the main process has everything but this
            error = attempt(
                folder, lambda: _save_whole(draft / TENSORS_FOLDER / f"rank{world.rank}.safetensors", extra)
            )
        if world.is_main and error is None:
            error = attempt(folder, lambda: _write_json(draft / STATE_FILE, state))
        # Raises inside the stack, so that the draft is removed; only then does the new state replace the old one.
        world.agree(error)
        if world.is_main:
            error = attempt(folder, stack.close)
        world.agree(error)


def _prefix(rank: int, num_processes: int) -> str:
    """What the names of an objective's tensors begin with: pools of several processes must not be mixed."""
    return OBJECTIVE_PREFIX if num_processes <= 1 else f"{OBJECTIVE_PREFIX}rank{rank}."


def _with_values(state: RunState, objective: ObjectiveState, world: World) -> RunState:
    by_rank = [json.loads(text) for text in world.gather_text(json.dumps(objective.values))]
    return replace(
        state,
        num_processes=world.size,
        objective_values=by_rank[0],
        objective_values_by_rank=by_rank if world.size > 1 else [],
    )


def attempt(folder: Path, work: Callable[[], object]) -> Exception | None:
    """What ``work()`` raised, as a :class:`CheckpointError` where it came from the disk."""
    try:
        work()
    except (OSError, SafetensorError, CheckpointError) as error:
        return _explain(folder, error)
    except Exception as error:
        if "CheckpointException" in type(error).__name__:  # what DCP wraps the errors of all processes in
            return _explain(folder, error)
        return error
    return None


def _explain(folder: Path, error: Exception) -> CheckpointError:
    is_full = _DISK_ERRORS.search(str(error)) or (isinstance(error, OSError) and error.errno in (27, 28, 122))
    if is_full or "no space left" in str(error).lower():
        return CheckpointError(
            f"no space left to save into {folder}: free some, or choose another --out; the previous state is intact"
        )
    return CheckpointError(f"{folder} cannot be written: {error}; the previous state is intact")


def _write_json(path: Path, state: RunState) -> None:
    path.write_text(json.dumps({"format": FORMAT, **asdict(state)}, indent=1) + "\n", encoding="utf-8")


def _save_whole(path: Path, named: Mapping[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in named.items()}, path)


def _save_shards(folder: Path, named: Mapping[str, torch.Tensor], optimizer: MasterOptimizer) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save(_as_global(named, optimizer), storage_writer=writer)


def _as_global(named: Mapping[str, torch.Tensor], optimizer: MasterOptimizer) -> dict[str, Any]:
    """Local shards as the distributed tensors they are parts of; the memory is shared."""
    return {name: _globalise(tensor, optimizer.parameters.get(_parameter(name))) for name, tensor in named.items()}


def _parameter(name: str) -> str:
    return name.partition(".")[2]


def _globalise(local: torch.Tensor, parameter: nn.Parameter | None) -> torch.Tensor:
    whole = parameter.detach() if parameter is not None else None
    if not isinstance(whole, DTensor):
        return local
    return DTensor.from_local(
        local, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def load_state(folder: Path, optimizer: MasterOptimizer, world: World, *, shards: bool) -> tuple[RunState, Any]:
    """Read a state into ``optimizer`` and its parameters; returns the figures and the objective's state.

    Raises:
        CheckpointError: damaged, or written by a model of another shape; the tensor is named.
    """
    state = read_state(folder)
    tensors = folder / TENSORS_FOLDER
    named = optimizer.tensors()
    stored = _read_shapes(tensors)
    _check_shapes(folder, stored, {name: tuple(_globalise_shape(name, t, optimizer)) for name, t in named.items()})
    is_whole = [path.name for path in tensors.iterdir()] == [WHOLE_FILE]
    is_own = (state.num_processes or int(is_whole)) == world.size
    prefix = _prefix(world.rank if is_own else 0, state.num_processes)
    objective_names = [name for name in stored if name.startswith(prefix)]
    if not shards and is_whole:
        with _damage_explained(tensors):
            read = load_file(tensors / WHOLE_FILE)
        for name, tensor in named.items():
            tensor.copy_(read[name])
        extra = {name: read[name] for name in objective_names}
    else:
        extra = {
            name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in stored.items() if name in objective_names
        }
        with _damage_explained(tensors):
            _load_shards(tensors, {**_as_global(named, optimizer), **extra}, world)
    optimizer.set_step(state.step)
    plain = {name.removeprefix(prefix): tensor for name, tensor in extra.items()}
    by_rank = state.objective_values_by_rank
    values = by_rank[world.rank] if is_own and by_rank else state.objective_values
    return state, ObjectiveState(tensors=plain, values=values, is_own=is_own)


@contextlib.contextmanager
def _damage_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from None


def _globalise_shape(name: str, local: torch.Tensor, optimizer: MasterOptimizer) -> torch.Size:
    parameter = optimizer.parameters.get(_parameter(name))
    return local.shape if parameter is None else parameter.shape


def _read_shapes(folder: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of every tensor in the folder's files; parts of one tensor are put together."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    with _damage_explained(folder):
        for path in folder.glob("*.safetensors"):
            read_header(path)  # a damaged or cut file is named here
        metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    found = {}
    for name, entry in metadata.state_dict_metadata.items():
        assert isinstance(entry, TensorStorageMetadata)
        found[name] = (tuple(entry.size), entry.properties.dtype)
    return found


def _check_shapes(
    folder: Path, stored: Mapping[str, tuple[tuple[int, ...], torch.dtype]], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    advice = "it is the state of another model: choose another --out, or the model that wrote it"
    for name, shape in wanted.items():
        if name not in stored:
            raise CheckpointError(f"{folder} has no tensor {name}: {advice}")
        if stored[name][0] != shape:
            there, here = list(stored[name][0]), list(shape)
            raise CheckpointError(f"{folder}: {name} has shape {there}, this model's has {here}: {advice}")
    for name in stored:
        if name not in wanted and not name.startswith(OBJECTIVE_PREFIX):
            raise CheckpointError(f"{folder} has a tensor {name} that this model lacks: {advice}")


def _load_shards(folder: Path, targets: dict[str, Any], world: World) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():
        # torch warns that a single process is a single process.
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(targets, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=world.size == 1)


def clear_drafts(folder: Path) -> None:
    """Remove what a killed run left half-written beside ``folder``."""
    remove(folder.parent / f".{folder.name}.new")
