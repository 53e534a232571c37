"""Rewrites of the languages that are read with tree-sitter, one a file."""
