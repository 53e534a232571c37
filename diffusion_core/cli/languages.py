"""Which language a file is in, by its name: the identifiers that editors use."""

from __future__ import annotations

from pathlib import Path

LANGUAGE_BY_SUFFIX = {
    ".bash": "shellscript", ".c": "c", ".cc": "cpp", ".cpp": "cpp", ".cs": "csharp", ".css": "css", ".cxx": "cpp",
    ".ex": "elixir", ".exs": "elixir", ".go": "go", ".h": "c", ".hpp": "cpp", ".hs": "haskell", ".html": "html",
    ".java": "java", ".js": "javascript", ".json": "json", ".jsx": "javascriptreact", ".kt": "kotlin",
    ".kts": "kotlin", ".lua": "lua", ".md": "markdown", ".mjs": "javascript", ".php": "php", ".pl": "perl",
    ".pm": "perl", ".py": "python", ".pyi": "python", ".r": "r", ".rb": "ruby", ".rs": "rust", ".scala": "scala",
    ".sh": "shellscript", ".sql": "sql", ".swift": "swift", ".toml": "toml", ".ts": "typescript",
    ".tsx": "typescriptreact", ".yaml": "yaml", ".yml": "yaml", ".zsh": "shellscript",
}  # fmt: skip


def guess_language(path: Path) -> str:
    """The language identifier; empty when the name tells nothing."""
    return LANGUAGE_BY_SUFFIX.get(path.suffix.lower(), "")
