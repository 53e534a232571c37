r"""Source files as the command line sees them: exact text, positions in UTF-16 code units, atomic writing.

Lines end at ``\n``, ``\r\n`` and ``\r`` only, as in the Language Server Protocol: U+2028 and form feeds are ordinary
characters. A model is shown ``\n``; what it gives back gets the line ends of the document again.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import ClassVar

from diffusion_core.errors import UnmaskError

BYTE_ORDER_MARK = "\ufeff"
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")


class DocumentError(UnmaskError):
    """A file cannot be read, understood or written; the message names it."""

    code: ClassVar[str] = "document"


class PositionError(UnmaskError):
    """A line or column that the document does not have; the message names what it has."""

    code: ClassVar[str] = "position"


@dataclass(frozen=True, slots=True)
class Document:
    """A file's text without its byte order mark. ``lines`` keep their line ends; the last one may have none."""

    path: Path
    raw: bytes
    text: str
    lines: tuple[str, ...]

    @property
    def newline(self) -> str:
        r"""The most frequent line end; ``\n`` for a document without one."""
        ends = Counter(line_end(line) for line in self.lines)
        del ends[""]
        return ends.most_common(1)[0][0] if ends else "\n"


def read_document(path: Path) -> Document:
    """Read a UTF-8 file.

    Raises:
        DocumentError: it cannot be read or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: is not UTF-8 (byte {error.start}): convert it first") from None
    text = text.removeprefix(BYTE_ORDER_MARK)
    return Document(path, raw, text, split_lines(text))


def split_lines(text: str) -> tuple[str, ...]:
    """The lines with their ends. A text that ends with a line end has one more, empty line, as editors show it."""
    lines = _LINE.findall(text)
    if not lines or line_end(lines[-1]):
        lines.append("")
    return tuple(lines)


def line_end(line: str) -> str:
    """The characters that end the line; empty for none."""
    if line.endswith("\r\n"):
        return "\r\n"
    return line[-1] if line.endswith(("\n", "\r")) else ""


def offset_at(document: Document, line: int, character: int) -> int:
    """The index into ``document.text`` of a position; ``character`` counts UTF-16 code units.

    Raises:
        PositionError: no such line or column, or a column inside a character.
    """
    check_line(document, line, "line")
    content = document.lines[line].removesuffix(line_end(document.lines[line]))
    encoded = content.encode("utf-16-le")
    if not 0 <= 2 * character <= len(encoded):
        raise PositionError(f"character {character}: line {line} has {len(encoded) // 2} (in UTF-16 code units)")
    try:
        before = encoded[: 2 * character].decode("utf-16-le")
    except UnicodeDecodeError:
        raise PositionError(
            f"character {character} of line {line} lies inside a character that counts as two"
        ) from None
    return sum(map(len, document.lines[:line])) + len(before)


def check_line(document: Document, line: int, name: str) -> None:
    """Raise :class:`PositionError` unless the document has that line."""
    if not 0 <= line < len(document.lines):
        count = len(document.lines)
        shown = "1 line (only line 0)" if count == 1 else f"{count} lines (0 to {count - 1})"
        raise PositionError(f"{name} {line}: {document.path.name} has {shown}")


def to_line_feeds(text: str) -> str:
    r"""The text with ``\n`` for every line end: what a model is shown."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def restore_line_ends(original: str, edited: str, newline: str) -> str:
    """``edited`` with line ends as in ``original``.

    A line that the edit kept keeps its own end; a new one gets ``newline``. The text ends with a line end exactly
    if the original does, unless nothing of it is left.
    """
    edited = to_line_feeds(edited)
    if not edited:
        return ""
    old = [line for line in split_lines(original) if line]
    new = edited.removesuffix("\n").split("\n")
    ends = [newline] * len(new)
    contents = [line.removesuffix(line_end(line)) for line in old]
    for kept in SequenceMatcher(None, contents, new, autojunk=False).get_matching_blocks():
        for step in range(kept.size):
            ends[kept.b + step] = line_end(old[kept.a + step]) or newline
    if old and not line_end(old[-1]):
        ends[-1] = ""
    for index in range(1, len(new)):
        if ends[index - 1] == "\r" and not new[index] and ends[index] == "\n":
            ends[index] = "\r"  # an empty line's "\n" right after a "\r" would make one line end of two
    return "".join(line + end for line, end in zip(new, ends, strict=True))


def write_document(document: Document, text: str) -> None:
    """Replace the file's text in one step: a reader sees the old file or the new one. Mode and links are kept.

    Raises:
        DocumentError: the file was changed since it was read, or cannot be written.
    """
    target = document.path.resolve()
    mark = BYTE_ORDER_MARK if document.raw.startswith(BYTE_ORDER_MARK.encode()) else ""
    temporary: Path | None = None
    try:
        if target.read_bytes() != document.raw:
            raise DocumentError(f"{document.path}: was changed by another program meanwhile; nothing was written")
        status = target.stat()
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write((mark + text).encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(stat.S_IMODE(status.st_mode))
        if (status.st_uid, status.st_gid) != (os.getuid(), os.getgid()):
            os.chown(temporary, status.st_uid, status.st_gid)
        temporary.replace(target)
    except UnicodeEncodeError:
        raise DocumentError(f"{document.path}: the edit is not valid Unicode; nothing was written") from None
    except OSError as error:
        raise DocumentError(f"{document.path}: cannot be written: {error.strerror}; it is unchanged") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
