"""An edited selection keeps the indentation of the original."""

from __future__ import annotations

from lsp_server.text_sync import split_lines


def restore_indentation(original: str, edited: str) -> str:
    r"""Models like to begin an answer at column 0: give it back the indentation that all of the original shared.

    Both texts have ``\n`` line ends. An answer whose first line is indented is left alone; its first line decides,
    so that an answer which is still growing is shown as it will be applied.
    """
    indent = _common_indent(original)
    if not indent or edited.lstrip("\n")[:1].isspace():
        return edited
    return "".join(indent + line if line.strip() else line for line in split_lines(edited))


def _common_indent(text: str) -> str:
    """The white space that all lines with content begin with."""
    common: str | None = None
    for line in text.split("\n"):
        if line.strip():
            indent = line[: len(line) - len(line.lstrip())]
            if common is None:
                common = indent
            while not indent.startswith(common):
                common = common[:-1]
    return common or ""
