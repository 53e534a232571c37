"""Which languages have a grammar, and how it is loaded: from a wheel, when it is first needed, once."""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import TYPE_CHECKING

from diffusion_core.grammars import GRAMMARS

if TYPE_CHECKING:
    from tree_sitter import Language

logger = logging.getLogger(__name__)


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
