"""Pull a checkpoint from a file or a folder on this machine: copied into the cache, verified on the way. No torch.

A copy, not a link: the cache then stays whole when the original is moved. Who wants no copy gives the path itself as
the model's name instead of pulling it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from diffusion_core.checkpoints.atomic import read_chunks, require_space
from diffusion_core.checkpoints.sources import Progress
from diffusion_core.checkpoints.store import checkpoint_files
from diffusion_core.errors import CheckpointError

_VOCABULARY_FILES = {"vocab.json", "merges.txt", "tokenizer_config.json"}  # what stands in for tokenizer.json
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def check_checkpoint_path(path: Path) -> None:
    """Raise :class:`CheckpointError` unless the path is a ``.gguf`` file or a folder of a supported layout.

    Looks at what is there, not inside; a folder with pickled weights only is refused with the way out.
    """
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if path.is_file():
        refuse_pickle(path)
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise CheckpointError(f"{path} is no GGUF file; a safetensors checkpoint is given by its folder")
        return
    names = {found.name for found in checkpoint_files(path)}
    if not any(name.endswith(".safetensors") for name in names):
        pickled = sorted(name for name in names if name.endswith(_PICKLED))
        if pickled:
            refuse_pickle(path / pickled[0])
        raise CheckpointError(f"{path} holds no *.safetensors file")
    if not names & {"config.json", "model_config.json"}:
        raise CheckpointError(f"{path} holds neither config.json nor model_config.json")
    if "tokenizer.json" not in names and not names >= _VOCABULARY_FILES:
        raise CheckpointError(f"{path} holds no tokenizer.json")


def refuse_pickle(path: Path) -> None:
    """Raise :class:`CheckpointError` for a file of a kind that runs code when it is loaded."""
    if path.suffix in _PICKLED:
        raise CheckpointError(
            f"{path} is a pickle: such files can run code when they are loaded and are never read; "
            "save the model as safetensors (`model.save_pretrained(folder)` in transformers does)"
        )


def copy_from_path(path: Path, folder: Path, progress: Progress) -> None:
    """Copy a checkpoint (a file, or the flat contents of a folder) into ``folder``.

    Raises:
        CheckpointError: not enough space.
    """
    files = checkpoint_files(path)
    total = sum(found.stat().st_size for found in files)
    require_space(folder, total)
    done = 0
    for found in files:
        with found.open("rb") as source, (folder / found.name).open("wb") as target:
            for chunk in read_chunks(source):
                target.write(chunk)
                done += len(chunk)
                progress(done, total, f"copying {found.name}")
        shutil.copystat(found, folder / found.name)
