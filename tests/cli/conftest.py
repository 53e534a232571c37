"""Fixtures of these tests."""

from helpers.engine_fixtures import engine_server, server, unmask

__all__ = ["engine_server", "server", "unmask"]
