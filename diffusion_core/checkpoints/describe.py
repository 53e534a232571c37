"""What is known of a checkpoint without loading it: a name's record, or what a file or folder says of itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from diffusion_core.checkpoints.families.family import Family
from diffusion_core.checkpoints.families.recognise import AUTO
from diffusion_core.checkpoints.footprint import count_parameters
from diffusion_core.checkpoints.registry import ModelEntry, Verification, family_verifications, find_known, registry
from diffusion_core.checkpoints.store import (
    RECEIPT_FILE,
    Receipt,
    checkpoint_files,
    checkpoint_folder,
    downloaded_names,
    is_downloaded,
    locate,
    read_receipt,
)
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import (
    DIFFUSION_CONFIG_FILE,
    MODEL_CONFIG_FILE,
    DiffusionConfig,
    ModelConfig,
    read_diffusion_config,
    read_model_config,
)
from diffusion_core.prompts import prompt_format

PREFIX_ONLY = "prefix_only"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The part of a DiffusionConfig that a user asks about. ``block_size`` 1: one token after the other."""

    prompt_format: str
    fim_layout: str
    attention: str
    block_size: int
    is_diffusion: bool


@dataclass(frozen=True, kw_only=True)
class Description:
    """A checkpoint as far as it is known; None and "" where it is not.

    ``licence`` is the family's (unknown for weights in our own layout). ``size_bytes`` is that of the download.
    ``verified`` was seen here of these weights, ``family_verified`` of the family on tiny checkpoints of its own code.
    """

    name: str
    title: str = ""
    task: str = ""
    family: str = ""
    homepage: str = ""
    licence: str = ""
    licence_must_be_accepted: bool = False
    accepted_licence: str = ""
    sources: tuple[str, ...] = ()
    is_downloaded: bool = True
    size_bytes: int | None = None
    shape: ModelConfig | None = None
    contract: Contract | None = None
    edits: bool = False
    verified: tuple[Verification, ...] = ()
    family_verified: tuple[Verification, ...] = ()

    @property
    def fills_in_the_middle(self) -> bool:
        """Whether text behind the cursor is part of what the model reads."""
        if self.contract is None:
            return False
        asked = prompt_format(self.contract.prompt_format)
        return (self.contract.fim_layout or asked.default_fim_layout) != PREFIX_ONLY

    @property
    def num_parameters(self) -> int | None:
        """Number of parameters, from the shape."""
        return None if self.shape is None else count_parameters(self.shape)


def describe_all() -> list[Description]:
    """Every model that has a name, and every other that was pulled."""
    others = [name for name in downloaded_names() if name not in registry()]
    return [describe_entry(entry) for entry in registry().values()] + [_describe_pulled(name) for name in others]


def describe(name_or_path: str, family: str = AUTO) -> Description:
    """What a name, a file or a folder stands for; ``family`` is that of a folder that does not show it.

    Raises:
        CheckpointError: unknown, or what is there is damaged or not supported.
    """
    if (known := find_known(name_or_path)) is not None:
        return describe_entry(known)
    if name_or_path in downloaded_names():
        return _describe_pulled(name_or_path, is_strict=True)
    return describe_path(locate(name_or_path), family)


def describe_entry(entry: ModelEntry) -> Description:
    """A named checkpoint: by its record, whether it is downloaded or not."""
    receipt = _receipt_of(entry.name)
    contract = _short(entry.diffusion) if entry.diffusion is not None else _of_family(entry.family)
    return Description(
        name=entry.name,
        title=entry.title,
        task=entry.task,
        family=entry.family.name,
        homepage=entry.homepage,
        licence=entry.licence,
        licence_must_be_accepted=entry.family.licence_must_be_accepted,
        accepted_licence=receipt.accepted_licence if receipt else "",
        sources=entry.sources,
        is_downloaded=is_downloaded(entry.name),
        size_bytes=receipt.size_bytes if receipt else entry.size_bytes,
        shape=entry.shape,
        contract=contract,
        edits=entry.edits and contract is not None and _can_edit(contract),
        verified=(*entry.verified, *_pulled(receipt)),
        family_verified=family_verifications(entry.family.name),
    )


def describe_path(path: Path, family: str = AUTO) -> Description:
    """A ``.gguf`` file, a Hugging Face folder, or a folder in our own layout: read, not loaded.

    Raises:
        CheckpointError: see :func:`describe`.
    """
    size = sum(found.stat().st_size for found in checkpoint_files(path))
    if path.is_dir() and (path / MODEL_CONFIG_FILE).is_file():
        contract = _short(read_diffusion_config(path / DIFFUSION_CONFIG_FILE))
        shape = read_model_config(path / MODEL_CONFIG_FILE)
        return Description(name=str(path), size_bytes=size, shape=shape, contract=contract, edits=_can_edit(contract))
    from diffusion_core.checkpoints.foreign import open_foreign

    with open_foreign(path, family) as foreign:
        contract = _short(foreign.diffusion_config)
        return Description(
            name=str(path),
            title=foreign.family.title,
            family=foreign.family.name,
            licence=foreign.family.licence,
            licence_must_be_accepted=foreign.family.licence_must_be_accepted,
            size_bytes=size,
            shape=foreign.model_config,
            contract=contract,
            edits=_can_edit(contract),
            family_verified=family_verifications(foreign.family.name),
        )


def _describe_pulled(name: str, *, is_strict: bool = False) -> Description:
    """A checkpoint that was pulled from a path; in a list one that cannot be read is still listed."""
    folder = checkpoint_folder(name)
    try:
        receipt = read_receipt(folder)
        found = describe_path(folder / receipt.file, receipt.family)
    except CheckpointError:
        if is_strict:
            raise
        return Description(name=name, title="pulled from a path; it cannot be read", is_downloaded=is_downloaded(name))
    return replace(
        found,
        name=name,
        title="pulled from a path",
        is_downloaded=is_downloaded(name),
        size_bytes=receipt.size_bytes,
        accepted_licence=receipt.accepted_licence,
        verified=_pulled(receipt),
    )


def _receipt_of(name: str) -> Receipt | None:
    folder = checkpoint_folder(name)
    try:
        return read_receipt(folder) if (folder / RECEIPT_FILE).exists() else None
    except CheckpointError:
        return None


def _pulled(receipt: Receipt | None) -> tuple[Verification, ...]:
    """What the pull itself verified, where its day is known."""
    if receipt is None or not receipt.pulled_at or receipt.source == "path":
        return ()
    return (Verification(date=receipt.pulled_at, what=f"files by the hashes of their source ({receipt.origin})"),)


def _short(contract: DiffusionConfig) -> Contract:
    return Contract(
        prompt_format=contract.prompt_format,
        fim_layout=contract.fim_layout,
        attention=contract.attention.value,
        block_size=contract.block_size,
        is_diffusion=contract.drafter.value != "none",
    )


def _of_family(family: Family) -> Contract | None:
    if not family.prompt_format:
        return None  # the vocabulary decides
    return Contract(
        prompt_format=family.prompt_format,
        fim_layout=family.fim_layout,
        attention=family.attention.value,
        block_size=family.block_size,
        is_diffusion=family.is_diffusion,
    )


def _can_edit(contract: Contract) -> bool:
    return prompt_format(contract.prompt_format).render_edit is not None
