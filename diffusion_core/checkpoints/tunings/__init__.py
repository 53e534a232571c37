"""Tunings that come with the package: data, found by ``packaged.py``."""
