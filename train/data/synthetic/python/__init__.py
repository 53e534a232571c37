"""Rewrites of Python, one a file."""
