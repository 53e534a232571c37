"""Which wheel holds the tree-sitter grammar of a language: the one list of language server and training."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Language id (as in VS Code) -> module of the grammar's wheel, and the function in it.
GRAMMARS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "python": ("tree_sitter_python", "language"),
        "javascript": ("tree_sitter_javascript", "language"),
        "javascriptreact": ("tree_sitter_javascript", "language"),
        "typescript": ("tree_sitter_typescript", "language_typescript"),
        "typescriptreact": ("tree_sitter_typescript", "language_tsx"),
        "go": ("tree_sitter_go", "language"),
        "rust": ("tree_sitter_rust", "language"),
        "java": ("tree_sitter_java", "language"),
        "c": ("tree_sitter_c", "language"),
        "cpp": ("tree_sitter_cpp", "language"),
    }
)
