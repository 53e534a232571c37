"""What a corpus holds: infilling examples and edits, as text, before any tokenizer.

An example knows where it comes from and under which licence. A document is an infilling example whose middle is the
whole file. Examples are stored as JSON, one a line; what is read back equals what was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from diffusion_core.errors import ConfigError


class ExampleKind(StrEnum):
    """What the model has to produce."""

    DOCUMENT = "document"
    INFILL_LINE = "infill_line"
    INFILL_LINES = "infill_lines"
    INFILL_SPAN = "infill_span"
    INFILL_NODE = "infill_node"
    INFILL_END = "infill_end"
    EDIT_COMMIT = "edit_commit"
    EDIT_SYNTHETIC = "edit_synthetic"


EDIT_KINDS = frozenset({ExampleKind.EDIT_COMMIT, ExampleKind.EDIT_SYNTHETIC})


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a text comes from.

    ``source`` is ``package==version`` or ``repository@commit``; ``path`` stands inside it; ``licence`` is an SPDX
    name; ``language`` is the editor's language id (``python``, ``typescript``).
    """

    source: str
    path: str
    licence: str
    language: str


@dataclass(frozen=True, kw_only=True)
class InfillExample:
    """``middle`` is to be written between ``prefix`` and ``suffix``; of a document, both are empty.

    Prefix and suffix are cut to a window around the middle; ``path`` is the file's, as an editor would send it.
    """

    kind: ExampleKind
    prefix: str
    middle: str
    suffix: str
    path: str
    origin: Origin

    def __post_init__(self) -> None:
        if self.kind in EDIT_KINDS:
            raise ConfigError(f"an infilling example cannot be of kind {self.kind.value!r}")


@dataclass(frozen=True, kw_only=True)
class EditExample:
    """``before[start:end]`` is the selection that ``instruction`` asks to change into ``edited``.

    ``before`` is the whole file, ``start`` and ``end`` count characters, ``rewrite`` names the synthetic rewrite and
    is empty for a commit.
    """

    kind: ExampleKind
    before: str
    start: int
    end: int
    edited: str
    instruction: str
    rewrite: str
    origin: Origin

    def __post_init__(self) -> None:
        if self.kind not in EDIT_KINDS:
            raise ConfigError(f"an edit cannot be of kind {self.kind.value!r}")
        if not 0 <= self.start <= self.end <= len(self.before):
            raise ConfigError(
                f"an edit of {self.origin.path} selects characters {self.start} to {self.end} "
                f"of a file of {len(self.before)}"
            )

    @property
    def selection(self) -> str:
        """The text before the edit."""
        return self.before[self.start : self.end]

    @property
    def after(self) -> str:
        """The whole file after the edit."""
        return self.before[: self.start] + self.edited + self.before[self.end :]


Example = InfillExample | EditExample


def to_json(example: Example) -> dict[str, Any]:
    """The example as an object of JSON values; :func:`from_json` gives it back."""
    origin = example.origin
    row: dict[str, Any] = {
        name: getattr(example, name) for name in example.__dataclass_fields__ if name not in ("kind", "origin")
    }
    return {
        "kind": example.kind.value,
        **row,
        "origin": {
            "source": origin.source,
            "path": origin.path,
            "licence": origin.licence,
            "language": origin.language,
        },
    }


def from_json(row: Mapping[str, Any]) -> Example:
    """The example that :func:`to_json` stored.

    Raises:
        ConfigError: a field is missing or of the wrong type, or the kind is unknown.
    """
    try:
        kind = ExampleKind(row["kind"])
        chosen: type[InfillExample | EditExample] = EditExample if kind in EDIT_KINDS else InfillExample
        origin = Origin(**{name: _text(row["origin"], name) for name in Origin.__dataclass_fields__})
        numbers = {name: int(row[name]) for name in ("start", "end") if chosen is EditExample}
        texts = {
            name: _text(row, name)
            for name in chosen.__dataclass_fields__
            if name not in ("kind", "origin") and name not in numbers
        }
        return chosen(kind=kind, origin=origin, **texts, **numbers)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"an example of the corpus cannot be read: {type(error).__name__} {error}") from None


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value
