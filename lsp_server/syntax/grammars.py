"""Which languages have a grammar, and how it is loaded: from a wheel, when it is first needed, once."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Language

logger = logging.getLogger(__name__)

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


@cache
def load_grammar(language: str) -> Language | None:
    """The grammar of a language id; None if there is none, or if its wheel cannot be loaded on this machine."""
    if language not in GRAMMARS:
        return None
    module, function = GRAMMARS[language]
    try:
        from tree_sitter import Language

        return Language(getattr(importlib.import_module(module), function)())
    except (ImportError, ValueError, OSError) as error:  # ValueError: built for another version of tree-sitter
        logger.warning(
            "the grammar %s cannot be loaded (%s): indentation is used instead", module, type(error).__name__
        )
        return None
