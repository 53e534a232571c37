"""The extension's settings are those of the language server: names, types, defaults, allowed values, both ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from lsp_server.settings import FOREIGN_KEYS, ROOT, Settings, camel_case

PACKAGE = json.loads((Path(__file__).resolve().parents[3] / "editors" / "vscode" / "package.json").read_text())
CLIENT_ONLY = ("unmask.server.", *(f"{ROOT}.{key}." for key in FOREIGN_KEYS))
KINDS = {bool: "boolean", int: "integer", str: "string", tuple[str, ...]: "array"}


def leaves(cls: type[Any], path: str) -> Iterator[tuple[str, Field[Any], Any]]:
    """Every setting of the server: its name in the editor, its field, its type."""
    hints = get_type_hints(cls)
    for item in fields(cls):
        name = f"{path}.{camel_case(item.name)}"
        if is_dataclass(hints[item.name]):
            yield from leaves(hints[item.name], name)
        else:
            yield name, item, hints[item.name]


SERVER = {name: (item, kind) for name, item, kind in leaves(Settings, ROOT)}
SECRET = {name for name, (item, _) in SERVER.items() if item.metadata["secret"]}
EDITOR = {
    name: value for section in PACKAGE["contributes"]["configuration"] for name, value in section["properties"].items()
}
SHARED = sorted(set(SERVER) - SECRET)


def test_the_editor_offers_exactly_the_servers_settings_and_no_secret():
    ours = {name for name in EDITOR if not name.startswith(CLIENT_ONLY)}
    assert ours - set(SERVER) == set(), "the server does not know these"
    assert set(SERVER) - SECRET - ours == set(), "package.json lacks these"
    assert SECRET.isdisjoint(EDITOR), "secrets belong into the secret storage"
    assert SECRET, "the token is a secret"


@pytest.mark.parametrize("name", SHARED)
def test_type_default_and_description(name):
    item, kind = SERVER[name]
    offered = EDITOR[name]
    assert offered["type"] == KINDS[kind]
    assert item.default is not MISSING
    assert offered["default"] == (list(item.default) if isinstance(item.default, tuple) else item.default)
    assert len(offered["markdownDescription"]) > 20


@pytest.mark.parametrize("name", SHARED)
def test_allowed_values(name):
    item, kind = SERVER[name]
    is_allowed, offered = item.metadata["is_allowed"], EDITOR[name]
    if kind is int:
        low, high = offered["minimum"], offered["maximum"]
        assert [is_allowed(value) for value in (low - 1, low, high, high + 1)] == [False, True, True, False]
    elif kind is str and not is_allowed("no such value"):
        if "enum" in offered:
            assert all(is_allowed(value) for value in offered["enum"])
            words = {word.strip(",") for word in item.metadata["allowed"].removeprefix("one of ").split()}
            assert words <= set(offered["enum"]), "the server allows more"
        else:
            assert "pattern" in offered
    else:
        assert "enum" not in offered
        assert "pattern" not in offered


def test_where_code_goes_what_is_left_out_and_what_is_started_cannot_be_set_by_a_folder():
    for name, offered in EDITOR.items():
        if name.startswith(("unmask.engine.", "unmask.server.", "unmask.ignore.", "unmask.stats.")):
            assert offered["scope"] == "machine", name
    restricted = PACKAGE["capabilities"]["untrustedWorkspaces"]["restrictedConfigurations"]
    assert set(restricted) == {name for name, offered in EDITOR.items() if offered.get("scope") == "machine"}
