"""Syntax by tree-sitter, for the languages whose grammars come as wheels; indentation for the others.

Nothing here imports tree-sitter or a grammar before the first text is parsed: start-up does not wait for it.
"""

from __future__ import annotations

from lsp_server.syntax.declarations import Declaration, declarations
from lsp_server.syntax.definitions import Definition, enclosing_definition
from lsp_server.syntax.imports import Import, imports
from lsp_server.syntax.names import names_in
from lsp_server.syntax.point_kind import PointKind, kind_at
from lsp_server.syntax.tree import SyntaxTree, parse, parse_snapshot
from lsp_server.syntax.trees import Trees

__all__ = [
    "Declaration", "Definition", "Import", "PointKind", "SyntaxTree", "Trees", "declarations", "enclosing_definition",
    "imports", "kind_at", "names_in", "parse", "parse_snapshot",
]  # fmt: skip
