"""Unmask."""
