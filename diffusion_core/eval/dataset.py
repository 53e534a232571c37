"""Reads evaluation sets: one JSON object a line, plain or gzip, with errors that name file and line."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from diffusion_core.errors import UnmaskError

GZIP_MAGIC = b"\x1f\x8b"


class DatasetError(UnmaskError):
    """An evaluation file cannot be read, or is no such file; the message names file and line."""

    code: ClassVar[str] = "dataset"


@dataclass(frozen=True, slots=True)
class Row:
    """One object of the file. ``where`` names file and line, for error messages."""

    where: str
    fields: dict[str, Any]

    def text(self, name: str) -> str:
        """The string field ``name``.

        Raises:
            DatasetError: it is missing or no string.
        """
        value = self.fields.get(name)
        if not isinstance(value, str):
            found = "is missing" if name not in self.fields else f"is {type(value).__name__}, a string is expected"
            raise DatasetError(f"{self.where}: field {name!r} {found}")
        return value


@dataclass(frozen=True, slots=True)
class Dataset:
    """The rows of a file and the sha256 of its bytes."""

    name: str
    sha256: str
    rows: tuple[Row, ...]


def read_dataset(path: Path) -> Dataset:
    """Read a whole file.

    Raises:
        DatasetError: not readable, damaged gzip, not UTF-8, a line that is no JSON object, or no line at all.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    content = _decompress(path, raw)
    rows = tuple(
        Row(f"{path.name}, line {number}", _parse(path, number, line))
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip()
    )
    if not rows:
        raise DatasetError(f"{path}: holds no items")
    return Dataset(path.name, hashlib.sha256(raw).hexdigest(), rows)


def _decompress(path: Path, raw: bytes) -> bytes:
    if not raw.startswith(GZIP_MAGIC):
        if path.suffix == ".gz":
            raise DatasetError(f"{path}: is named .gz but is no gzip file")
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: the gzip data is damaged or cut short ({error})") from None


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        raise DatasetError(f"{path.name}, line {number}: is not UTF-8") from None
    except ValueError as error:
        raise DatasetError(f"{path.name}, line {number}: is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise DatasetError(f"{path.name}, line {number}: is no JSON object but {type(value).__name__}")
    return value


T = TypeVar("T")


def sample_items(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """All items, or ``limit`` of them drawn by ``seed``; in the order of the file."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = random.Random(seed).sample(range(len(items)), limit)  # noqa: S311 - a reproducible sample, no secret
    return [items[index] for index in sorted(chosen)]
